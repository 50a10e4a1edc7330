"""Does every operation answer strange requests as its document says, on both databases? Tried by schemathesis."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

from libs.common.jobs import JobKind
from scripts.processes import free_port
from services.gateway.routing import PREFIX
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import ADMIN, create_database, postgres

assert postgres

# A feed does not end, and its refusals are those of its job's other routes.
ENDLESS = {f"{kind.value}_job_events" for kind in JobKind}
EXAMPLES = 40


@pytest.fixture(params=["sqlite", "postgresql"])
def gateway(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A gateway as a process of its own, without broker and inner services."""
    url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    if request.param == "postgresql":
        url = asyncio.run(create_database(request.getfixturevalue("postgres")))
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "SERVICE_TOKEN": TOKEN,
        "DATA_ROOT": str(tmp_path / "data"),
        "MODELS_ROOT": str(tmp_path / "models"),
        "DATABASE_URL": url,
        "NATS_URL": "nats://127.0.0.1:1",
        "INGEST_URL": "http://127.0.0.1:1",
        "INFERENCE_URL": "http://127.0.0.1:1",
        "PORT": str(port),
        "ADMIN_EMAIL": ADMIN[0],
        "ADMIN_PASSWORD": ADMIN[1],
        "LOGIN_ATTEMPTS": "1000000",
        "LOG_FILES": "false",
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "ERROR",
    }
    subprocess.run([sys.executable, "-m", "services.gateway.migrate"], env=environment, check=True, timeout=60)
    log = tmp_path / "gateway.log"
    with log.open("wb") as said:
        process = subprocess.Popen([sys.executable, "-m", "services.gateway"], env=environment, stderr=said)
        try:
            for _ in range(1200):
                try:
                    httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
                    break
                except httpx.TransportError:
                    time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(60)
    errors = [line for line in log.read_text(errors="replace").splitlines() if "problem.unexpected" in line]
    assert errors == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_request_is_answered_with_a_500_or_with_what_is_not_declared(gateway: str) -> None:
    login = httpx.post(f"{gateway}/api/v1/auth/login", json={"email": ADMIN[0], "password": ADMIN[1]}, trust_env=False)
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    document = httpx.get(f"{gateway}/openapi.json", trust_env=False).json()
    schema = schemathesis.openapi.from_dict(document)
    tried, wrong = 0, []

    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw["operationId"] in ENDLESS or not operation.path.startswith(PREFIX):
            continue
        try:
            _try(operation, gateway, headers)
        except AssertionError as error:
            wrong.append(str(error).partition("\nassert")[0])
        tried += 1

    assert wrong == []
    assert tried > 30


def _try(operation: Any, url: str, headers: dict[str, str]) -> None:
    declared = set(operation.definition.raw["responses"])

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy())
    def answered_as_declared(case: Any) -> None:
        response = case.call(base_url=url, headers=headers, timeout=60)
        said = f"{case.method} {response.request.url}: {response.status_code} {response.text[:400]}"

        assert response.status_code != 500, said
        assert str(response.status_code) in declared | {"404", "405"}, said
        if response.status_code >= 400:
            assert response.headers["content-type"] == ["application/problem+json"], said
            assert response.json()["status"] == response.status_code, said

    answered_as_declared()
