"""Do the servers around the services do their part: TLS, PostgreSQL, the object store, traces, Prometheus?"""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from scripts.containers import Containers, wait_for
from scripts.deploy_checks.monitoring import every_query
from scripts.deploy_checks.queries import plain
from scripts.secret_file import read_secrets
from scripts.smoke_journey import Say, must
from scripts.stack import PROJECT

FOLDER = PROJECT / "deploy" / "compose"
LIST_OBJECTS = (
    "import boto3; s3 = boto3.client('s3', endpoint_url='http://127.0.0.1:8333', region_name='us-east-1', "
    "aws_access_key_id='a', aws_secret_access_key='b'); "
    "print(sum(s3.list_objects_v2(Bucket=b['Name']).get('KeyCount', 0) for b in s3.list_buckets()['Buckets']))"
)


def behind_tls(stack: Containers, port: int, folder: Path, say: Say) -> None:
    """The API over Caddy's own certificate, which is verified; what is for Prometheus is not passed on."""
    [caddy] = stack.containers("caddy")
    root = folder / "root.crt"
    wait_for(lambda: _copied(caddy, root), 120, "Caddy made no authority")
    url = f"https://localhost:{port}"
    with httpx.Client(verify=ssl.create_default_context(cafile=str(root)), trust_env=False, timeout=30) as client:
        answer = client.get(f"{url}/api/v1/models")
        must(answer.status_code == 401, f"{url}/api/v1/models answers {answer.status_code} to nobody")
        must("strict-transport-security" in answer.headers, "Strict-Transport-Security is missing")
        inner = client.get(f"{url}/metrics")
        must(inner.status_code == 404, f"/metrics is passed on: {inner.status_code}")
    say("TLS: the certificate is right, the API answers, /metrics is not passed on")


def _copied(caddy: str, target: Path) -> bool:
    source = f"{caddy}:/data/caddy/pki/authorities/local/root.crt"
    return subprocess.run(["docker", "cp", source, str(target)], capture_output=True).returncode == 0


def traces(stack: Containers, say: Say) -> None:
    """A training is one trace, from the request through the three services that work for it."""
    url = f"{stack.published('collector', 4318)}/traces"
    wanted = {"gateway": "POST /api/v1/training/jobs", "preprocessor": "work preprocess", "trainer": "work publish"}

    def whole() -> dict[str, list[str]] | None:
        """The first trace that has all of `wanted`: its spans by service."""
        found: dict[str, dict[str, list[str]]] = httpx.get(url, timeout=30, trust_env=False).json()
        fits = (one for one in found.values() if all(span in one.get(s, ()) for s, span in wanted.items()))
        return next(fits, None)

    wait_for(lambda: whole() is not None, 60, "no trace leads from a request to a published voice")
    trace = whole() or {}
    count = sum(map(len, trace.values()))
    say(f"traces: a training is one, {count} spans of {', '.join(sorted(trace))}")


def database(stack: Containers, say: Say) -> None:
    """The jobs are in PostgreSQL."""
    answer = stack.inside(
        "postgres",
        "PGPASSWORD=$POSTGRES_PASSWORD psql -h 127.0.0.1 -U voicewright -Atc 'select count(*) from jobs'",
    )
    must(answer.isdecimal() and int(answer) > 0, f"PostgreSQL has no jobs: {answer}")
    say(f"PostgreSQL: {answer} jobs")


def objects(stack: Containers, say: Say) -> None:
    """Recordings and voices were copied to the object store."""

    def kept() -> str:
        return stack.inside("s3", f'/opt/venv/bin/python -c "{LIST_OBJECTS}"')

    wait_for(lambda: kept().isdecimal() and int(kept()) > 0, 120, "the object store has nothing")
    say(f"object store: {kept()} objects")


def prometheus(stack: Containers, port: int, trainers: int, say: Say) -> None:
    """Every replica is found, every query of dashboards and alerts is answered, and every rules file is loaded."""
    url = f"http://127.0.0.1:{port}/api/v1"
    with httpx.Client(trust_env=False, timeout=30) as client:

        def targets() -> dict[str, int]:
            found: dict[str, int] = {}
            for target in client.get(f"{url}/targets").json()["data"]["activeTargets"]:
                if target["health"] == "up":
                    found[target["labels"]["job"]] = found.get(target["labels"]["job"], 0) + 1
            return found

        wanted = {"gateway": 1, "ingest": 1, "preprocessor": 1, "inference": 1, "trainer": trainers}
        wait_for(lambda: targets() == wanted, 120, f"Prometheus finds {targets()}, not {wanted}")
        say(f"Prometheus finds {', '.join(f'{count} {job}' for job, count in sorted(wanted.items()))}")
        answered = 0
        queries = list(every_query(PROJECT / "deploy", []))
        for query in queries:
            answer: dict[str, Any] = client.get(f"{url}/query", params={"query": plain(query.text)}).json()
            must(answer["status"] == "success", f"{query.place}: {answer.get('error')}")
            answered += bool(answer["data"]["result"])
        say(f"Prometheus takes {len(queries)} queries of dashboards and alerts, and has an answer to {answered} by now")
        groups = client.get(f"{url}/rules").json()["data"]["groups"]
        say(f"Prometheus has loaded {sum(len(group['rules']) for group in groups)} rules")


def files_of_what_was_not_run(say: Say) -> None:
    """Grafana's and SeaweedFS's files, as far as they can be looked at without them."""
    boards = sorted((FOLDER / "grafana" / "dashboards").glob("*.json"))
    panels = sum(len(json.loads(path.read_text(encoding="utf-8"))["panels"]) for path in boards)
    start = FOLDER / "seaweedfs" / "start.sh"
    must(subprocess.run(["sh", "-n", str(start)], capture_output=True).returncode == 0, "start.sh is no shell script")
    say(f"not run: Grafana ({len(boards)} dashboards with {panels} panels load) and SeaweedFS (its start.sh parses)")


def secrets_that_were_said(stack: Containers) -> Iterator[str]:
    """Names of secrets whose values stand in the log of some container."""
    log = stack.compose("logs", "--no-color")
    for name, value in read_secrets(stack.env_file).items():
        if any(word in name for word in ("PASSWORD", "SECRET", "TOKEN", "ACCESS_KEY")) and value in log:
            yield name
