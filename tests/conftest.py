"""Parts that all tests share: a real nats-server that can be killed, and settings with short times."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from libs.common.settings import CommonSettings
from scripts.processes import free_port
from tests.waiting import PATIENCE

# Before anything imports torch: on a busy machine spinning compute threads make tests ten times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

TOKEN = "test-service-token-0123456789"


class Together(LoadScopeScheduling):
    """Which tests stay in one process, one after the other: those of a file, and of a folder that says so."""

    FOLDERS = ("tests/deploy", "tests/integration/scripts")  # they use one Docker engine; they look for free places

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return next((folder for folder in self.FOLDERS if file.startswith(folder + "/")), file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    return Together(config, log)


class NatsServer:
    """A real nats-server with JetStream on its own port and store, started again when it ends by itself.

    As whatever runs it does elsewhere: Debian's 2.9.10 crashes when a message is asked for of a stream that is being
    made (a nil pointer in `jsMsgGetRequest`), as clients do that come back to a broker without its store.
    """

    def __init__(self, store: Path, *options: str) -> None:
        self._options = options
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()

    def start(self) -> None:
        with self._changing:
            self._begin()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            with socket.socket() as s:
                if s.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        self.kill()
        raise RuntimeError("nats-server did not start")

    def _begin(self) -> None:
        binary = shutil.which("nats-server") or "/usr/sbin/nats-server"
        self._process = subprocess.Popen(
            [binary, "-js", "-a", "127.0.0.1", "-p", str(self.port), "-sd", str(self._store), *self._options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        threading.Thread(target=self._watch, args=(self._process,), daemon=True).start()

    def _watch(self, process: subprocess.Popen[bytes]) -> None:
        process.wait()
        time.sleep(0.05)  # one that cannot start shall not take all cores
        with self._changing:
            if self._process is process:
                self._begin()

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        with self._changing:
            ending, self._process = self._process, None
        if ending is not None:
            ending.send_signal(how)
            ending.wait(PATIENCE)

    def restart(self) -> None:
        self.kill()
        self.start()

    def lose_store(self) -> None:
        """Ends, forgets everything, and starts again on the same port."""
        self.kill()
        shutil.rmtree(self._store)
        self.start()


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server for one test, which may kill and restart it."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@pytest.fixture
def make_settings(tmp_path: Path) -> Callable[..., CommonSettings]:
    """Settings under `tmp_path` with short delays and heartbeats.

    Leases are not short: on a busy machine a worker in good health may be silent for seconds. A test in which a lease
    has to run out asks for a short one.
    """

    def make(**changes: Any) -> CommonSettings:
        values: dict[str, Any] = {
            "service_token": TOKEN,
            "data_root": tmp_path / "data",
            "models_root": tmp_path / "models",
            "assets_root": tmp_path / "assets",
            "ack_wait": 40.0,
            "heartbeat": 0.75,
            "lease_ttl": 30.0,
            "cancel_poll": 0.05,
            "worker_ttl": 6.0,
            "commands_max_bytes": 32 * 2**20,
            "events_max_bytes": 32 * 2**20,
            "retry_delays": (0.25, 1.25, 6.25),
            "poll_interval": 0.05,
            "drain_timeout": 30.0,
            "log_files": False,
        }
        return CommonSettings(**(values | changes))

    return make


@pytest.fixture
def voice_corpus() -> Path:
    """Real speech, where it is."""
    folder = os.environ.get("VOICE_CORPUS")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VOICE_CORPUS does not name a folder of speech")
    return Path(folder)


@pytest.fixture
def voice_fixtures() -> Path:
    """Inputs and outputs of the reference implementations, where they are."""
    folder = os.environ.get("VOICE_FIXTURES")
    if not folder or not Path(folder).is_dir():
        pytest.skip("VOICE_FIXTURES does not name the folder of reference data")
    return Path(folder)
