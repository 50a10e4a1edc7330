#!/usr/bin/env bash
# Brings the platform up on this machine.
#
#   scripts/dev-up.sh               in containers, with the source of this folder: a change restarts what it touches
#   scripts/dev-up.sh --full        the same with PostgreSQL, an S3 server, TLS, Prometheus and Grafana
#   scripts/dev-up.sh --prod        as it runs for others: --full with the images' own code, in the background
#   scripts/dev-up.sh --gpu         also on this machine's NVIDIA cards; goes with each of the above
#   scripts/dev-up.sh --no-docker   as processes: five services and a nats-server, data under var/
#
# Secrets are made in .env when they are missing. All but --prod run until Ctrl-C.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; }

docker=1 prod=0 full=0 gpu=0
for option; do
  case $option in
    --no-docker) docker=0 ;;
    --prod) prod=1 ;;
    --full) full=1 ;;
    --gpu) gpu=1 ;;
    -h | --help) usage; exit ;;
    *) echo "dev-up: unknown option $option" >&2; usage >&2; exit 2 ;;
  esac
done

if ((!docker)); then
  if ((prod || full || gpu)); then
    echo "dev-up: --no-docker goes with no other option (processes use an NVIDIA card where torch finds one)" >&2
    exit 2
  fi
  [[ -x .venv/bin/python ]] || { echo "dev-up: run scripts/install first" >&2; exit 1; }
  scripts/secrets
  exec .venv/bin/python -m scripts.stack up
fi

if ! command -v docker >/dev/null && ! command -v docker-compose >/dev/null; then
  echo "dev-up: no docker here; scripts/dev-up.sh --no-docker needs none" >&2
  exit 1
fi
# Docker would make a missing folder itself, and as root.
mkdir -p var/assets
if ((prod || full)); then scripts/secrets --full; else scripts/secrets; fi
options=()
if ((prod)); then options+=(--prod); else options+=(--dev); fi
if ((full && !prod)); then options+=(--full); fi
if ((gpu)); then options+=(--gpu); fi
# One build for each of the two images; `up --build` would ask for one from every service.
scripts/compose "${options[@]}" build gateway trainer
((prod)) || exec scripts/compose "${options[@]}" up
scripts/compose "${options[@]}" up --detach
echo "look: scripts/compose ${options[*]} ps · stop: scripts/compose ${options[*]} down"
