"""Workers as real processes that count, what they traced, and what the bus heard of them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.events import PrepareDataset, StepFinished
from libs.common.jobs import Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from tests.conftest import TOKEN
from tests.waiting import PATIENCE

ROOT = Path(__file__).parents[3]
# For tests in which a lease has to run out. Of their workers only one is awake at a time, so nobody else can take a
# step whose owner a busy machine holds up.
LEASES_RUN_OUT = {"ACK_WAIT": "1.5", "LEASE_TTL": "1.0"}
# For tests in which a step changes hands: it was handed over, because nothing runs out while a test waits.
NOTHING_RUNS_OUT = {"ACK_WAIT": "400", "LEASE_TTL": "400"}


def command(job: str = "job_1", mode: str = "auto", attempt: int = 1) -> PrepareDataset:
    return PrepareDataset(
        job_id=job,
        step=Step.preprocess,
        attempt=attempt,
        experiment="anna",
        dataset="anna",
        inputs=(),
        f0_method=mode,
    )


class Processes:
    """Starts workers as real processes and reads what they traced."""

    def __init__(self, settings: CommonSettings, trace: Path) -> None:
        self._settings = settings
        self.trace = trace
        self._log = trace.with_suffix(".log")
        self.all: list[subprocess.Popen[bytes]] = []

    def start(self, **environment: Any) -> subprocess.Popen[bytes]:
        s = self._settings
        variables = {
            "SERVICE_TOKEN": TOKEN,
            "DATA_ROOT": str(s.data_root),
            "NATS_URL": s.nats_url,
            "ACK_WAIT": "20",
            "HEARTBEAT": "0.3",
            "LEASE_TTL": "400",
            "CANCEL_POLL": "0.05",
            "POLL_INTERVAL": "0.05",
            "WORKER_TTL": "6",
            "RETRY_DELAYS": "0.25,0.5,1",
            "TRACE": str(self.trace),
            **{k: str(v) for k, v in environment.items()},
        }
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.common.counting_worker"],
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
            )
        self.all.append(process)
        return process

    def go_on(self) -> None:
        """Lets workers count on that hold at `HOLD_AT`."""
        self.trace.with_suffix(".go").touch()

    @property
    def said(self) -> str:
        """The log of all workers."""
        return self._log.read_text(errors="replace")

    def lines(self, word: str = "") -> list[str]:
        if not self.trace.exists():
            return []
        return [line for line in self.trace.read_text().splitlines() if word in line]

    async def wait_for(self, word: str, count: int = 1, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while len(self.lines(word)) < count:
            assert time.monotonic() < deadline, f"no {count} × {word!r} in {self.lines()}: {self.said[-3000:]}"
            await asyncio.sleep(0.02)


def result_of(paths: Paths, event: StepFinished) -> list[str]:
    manifest = manifests.load(paths, event.manifest)
    assert manifests.verify(paths, manifest) == []
    return sorted(Path(f).name for f in manifest.files)


EVERYTHING = [f"{n:03d}" for n in range(20)]
