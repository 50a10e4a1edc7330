#!/usr/bin/env bash
# Starts one service and what it needs, until Ctrl-C:
#   scripts/service-up.sh [--docker] gateway|ingest|preprocessor|trainer|inference
# Where `make up` already runs, the service joins it, with its broker, data and secrets, e.g. after it ended there.
# With --docker it is a container with the source of this folder; so are its needs, which stay when it is stopped.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
docker=0
if [[ ${1:-} == --docker ]]; then docker=1; shift; fi
case ${1:-} in
  gateway) needs=(ingest inference) images=(gateway inference) ;;
  ingest | preprocessor | trainer | inference) needs=() images=("$1") ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
[[ -f .env ]] || scripts/secrets
if ((docker)); then
  mkdir -p var/assets
  scripts/compose --dev build "${images[@]}"
  scripts/compose --dev up --detach nats "${needs[@]}"
  exec scripts/compose --dev up "$1"
fi
[[ -x .venv/bin/python ]] || { echo "service-up: run scripts/install first" >&2; exit 1; }
exec .venv/bin/python -m scripts.stack up --only "$1"
