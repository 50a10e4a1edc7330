"""The whole platform for flow tests: a broker and five real processes, with times twenty times shorter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.client.api import Client
from libs.client.models import Job
from scripts.stack import Stack
from tests.factories_audio import make_recordings
from tests.waiting import PATIENCE

QUICK = {
    "ACK_WAIT": "8",
    "HEARTBEAT": "0.75",
    "LEASE_TTL": "6",  # a worker in good health may be held up for seconds
    "CANCEL_POLL": "0.1",
    "WORKER_TTL": "6",
    "RETRY_DELAYS": "0.25,1.25,6.25",
    "POLL_INTERVAL": "0.05",
    "PROGRESS_WRITE": "0.25",
    "OUTBOX_POLL": "0.1",
    "CHECKPOINT_EVERY": "1",
    "EVALUATION_SECONDS": "3",
    "HEARTBEAT_COMMENT": "1",
    "TRAINING_THREADS": "1",
    "INFERENCE_THREADS": "1",
    "PREPROCESS_PROCESSES": "2",
}


@dataclass
class Platform:
    """A running stack and its administrator's client."""

    stack: Stack
    client: Client

    def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One plain call of the gateway with the administrator's token."""
        headers = {"Authorization": f"Bearer {self.client.connection.token}", **options.pop("headers", {})}
        url = f"{self.stack.url('gateway')}/api/v1{path}"
        return httpx.request(method, url, headers=headers, timeout=PATIENCE, trust_env=False, **options)

    def job(self, job_id: str) -> Job:
        return self.client.job(job_id)

    def wait_until(self, what: Callable[[], Any], seconds: float = PATIENCE, say: str = "") -> Any:
        """Asks until the answer is true; a platform that is restarting may refuse in between."""
        deadline = time.monotonic() + seconds
        last: Any = None
        while time.monotonic() < deadline:
            try:
                last = what()
            except (httpx.HTTPError, OSError) as error:
                last = error
            else:
                if last:
                    return last
            time.sleep(0.1)
        pytest.fail(f"{say or what} did not come within {seconds:g} s; last: {last!r}")

    def finished(self, job_id: str, seconds: float = 400.0) -> Job:
        """The job when it is over."""

        def over() -> Job | None:
            job = self.client.job(job_id)
            return job if job.status in ("completed", "failed", "cancelled") else None

        found: Job = self.wait_until(over, seconds, f"the end of {job_id}")
        return found

    def in_phase(self, job_id: str, phase: str, *, after_step: int = 0, seconds: float = 150.0) -> None:
        """Waits until the job is in a phase and its worker is at work."""

        def there() -> bool:
            job = self.client.job(job_id)
            assert job.status not in ("failed", "cancelled"), job.error
            if job.status == "completed":
                pytest.fail(f"{job_id} was over before it was seen in {phase}")
            return job.phase == phase and job.queue_state == "active" and (job.current_step or 0) >= after_step

        self.wait_until(there, seconds, f"{job_id} in {phase}")


def signed_in(stack: Stack) -> Client:
    client = Client(stack.url("gateway"))
    client.login(stack.secrets["ADMIN_EMAIL"], stack.secrets["ADMIN_PASSWORD"])
    return client


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Six recordings of one espeak-ng voice, about 40 seconds."""
    return make_recordings(tmp_path_factory.mktemp("recordings"), count=6, seconds=7.0)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A stack for one module of tests."""
    stack = Stack(tmp_path_factory.mktemp("platform"), environment=QUICK, ready_timeout=3 * PATIENCE)
    with stack:
        client = signed_in(stack)
        yield Platform(stack, client)
        client.close()
    assert stack.leftovers() == []
