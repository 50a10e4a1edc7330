#!/usr/bin/env bash
# Brings the platform up for development and leaves it running until Ctrl-C.
#
#   scripts/dev-up.sh               with containers (deploy/compose/compose.yaml)
#   scripts/dev-up.sh --no-docker   as processes of this machine: five services and a nats-server, data under var/
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
case ${1:-} in
  --no-docker)
    [[ -x .venv/bin/python ]] || { echo "dev-up: run scripts/install first" >&2; exit 1; }
    scripts/secrets
    exec .venv/bin/python -m scripts.stack up
    ;;
  '') ;;
  *) sed -n '2,5s/^# \{0,1\}//p' "$0"; [[ $1 == --help || $1 == -h ]] && exit 0 || exit 2 ;;
esac
if docker compose version >/dev/null 2>&1; then compose=(docker compose)
elif command -v docker-compose >/dev/null; then compose=(docker-compose)
else echo "dev-up: no docker here; scripts/dev-up.sh --no-docker needs none" >&2; exit 1
fi
scripts/secrets
exec "${compose[@]}" --env-file .env -f deploy/compose/compose.yaml up --build
