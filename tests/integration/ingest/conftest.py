"""A real ingest for one test: its own process, a real socket, a real broker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.bus import Bus
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from scripts.processes import free_port
from tests.conftest import TOKEN, NatsServer
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).parents[3]
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Service:
    """Ingest as a process that can be killed."""

    def __init__(
        self, settings: CommonSettings, environment: dict[str, str], preexec: Callable[[], None] | None
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.paths = Paths(settings)
        self._settings = settings
        self._environment = environment
        self._preexec = preexec
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        s = self._settings
        variables = {
            "SERVICE_TOKEN": TOKEN,
            "PORT": str(self.port),
            "DATA_ROOT": str(s.data_root),
            "MODELS_ROOT": str(s.models_root),
            "ASSETS_ROOT": str(s.assets_root),
            "NATS_URL": s.nats_url,
            "ACK_WAIT": "40",
            "HEARTBEAT": "0.75",
            "LEASE_TTL": "30",
            "POLL_INTERVAL": "0.05",
            "RETRY_DELAYS": "0.25,0.5",
            "COPY_RETRY": "0.2",
            "LOG_FILES": "false",
            "LOG_FORMAT": "json",
            **self._environment,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "services.ingest"],
            cwd=ROOT,
            env={**os.environ, **variables},
            preexec_fn=self._preexec,
        )
        self.wait_until_alive()

    def wait_until_alive(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self.process.poll() is None, "ingest ended while it started"
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("ingest does not listen")

    def wait_until_ready(self) -> None:
        wait_until(lambda: httpx.get(f"{self.url}/readyz", timeout=PATIENCE).status_code == 200)

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(PATIENCE)

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=HEADERS, timeout=60, trust_env=False)

    def upload(self, *files: tuple[str, bytes], **fields: str) -> httpx.Response:
        """One form with these files (name, content)."""
        with self.client() as client:
            return client.post("/uploads", data=fields, files=[("files", file) for file in files])

    def stage(self, path: Path) -> dict[str, Any]:
        """One file that must be accepted, as the answer describes it."""
        answer = self.upload((path.name, path.read_bytes()))
        assert answer.status_code == 200, answer.text
        (file,) = answer.json()["files"]
        assert "problem" not in file, file
        found: dict[str, Any] = file
        return found

    @property
    def staged(self) -> list[str]:
        """What lies in the staging area."""
        return sorted(p.name for p in self.paths.staging.iterdir()) if self.paths.staging.exists() else []

    def everything(self) -> str:
        """Every small file under the data folder as text."""
        return json.dumps(
            {
                str(p): p.read_bytes().decode("latin-1")
                for p in self.paths.data_root.rglob("*")
                if p.is_file() and p.stat().st_size < 1_000_000
            }
        )


StartIngest = Callable[..., Service]


@pytest.fixture
def settings(nats_server: NatsServer, make_settings: Callable[..., CommonSettings]) -> CommonSettings:
    return make_settings(nats_url=nats_server.url)


@pytest.fixture
def paths(settings: CommonSettings) -> Paths:
    return Paths(settings)


@pytest.fixture
def start_ingest(settings: CommonSettings) -> Iterator[StartIngest]:
    """Starts ingest with these variables; all are ended with the test."""
    services: list[Service] = []

    def start(preexec: Callable[[], None] | None = None, **environment: Any) -> Service:
        service = Service(settings, {name: str(value) for name, value in environment.items()}, preexec)
        services.append(service)
        service.start()
        return service

    yield start
    for service in services:
        service.kill()


@pytest.fixture(scope="module")
def shared_ingest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One ingest for the tests of a module, without any broker: files are received all the same."""
    root = tmp_path_factory.mktemp("ingest")
    service = Service(
        CommonSettings(
            service_token=TOKEN,
            data_root=root / "data",
            models_root=root / "models",
            assets_root=root / "assets",
            nats_url="nats://127.0.0.1:9",
        ),
        {},
        None,
    )
    service.start()
    yield service
    service.kill()


@pytest.fixture
def ingest(shared_ingest: Service) -> Iterator[Service]:
    """The shared ingest, its data folder empty."""
    yield shared_ingest
    shutil.rmtree(shared_ingest.paths.data_root, ignore_errors=True)


@pytest.fixture
async def bus(settings: CommonSettings) -> AsyncIterator[Bus]:
    """A bus of the test's own."""
    bus = await Bus.connect(settings, "gateway")
    await bus.ensure()
    yield bus
    await bus.close()
