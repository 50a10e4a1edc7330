#!/usr/bin/env bash
# Starts one service and what it needs, until Ctrl-C: scripts/service-up.sh gateway|ingest|preprocessor|trainer|inference
# Where `make up` already runs, the service joins it, with its broker, data and secrets, e.g. after it ended there.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
case ${1:-} in
  gateway | ingest | preprocessor | trainer | inference) ;;
  *) sed -n '2,3s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
[[ -x .venv/bin/python ]] || { echo "service-up: run scripts/install first" >&2; exit 1; }
[[ -f .env ]] || scripts/secrets
exec .venv/bin/python -m scripts.stack up --only "$1"
