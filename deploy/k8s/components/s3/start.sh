#!/bin/sh
# Starts SeaweedFS with its S3 door open to one key pair, the one that the services have. The pair comes from the
# environment and is written into memory only (/tmp is a tmpfs).
set -eu
: "${STORAGE_ACCESS_KEY:?}" "${STORAGE_SECRET_KEY:?}"
config=${S3_CONFIG:-/tmp/s3.json}
umask 077
printf '{"identities": [{"name": "voicewright", "credentials": [{"accessKey": "%s", "secretKey": "%s"}], "actions": ["Admin", "Read", "List", "Tagging", "Write"]}]}\n' \
  "$STORAGE_ACCESS_KEY" "$STORAGE_SECRET_KEY" >"$config"
exec weed server -dir=/data -ip=s3 -ip.bind=0.0.0.0 -volume.max=0 -master.volumeSizeLimitMB=1024 \
  -s3 -s3.port=8333 -s3.config="$config"
