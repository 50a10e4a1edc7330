"""Does anything get lost or doubled when the gateway's process is killed in the middle?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from libs.common.bus import Bus
from scripts.processes import free_port
from services.gateway.database import Database
from services.gateway.settings import GatewaySettings
from tests.conftest import TOKEN, NatsServer
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, SOON_AGAIN, House
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.integration.gateway_jobs.watching import Watcher
from tests.waiting import PATIENCE

pytestmark = [BOTH_DATABASES, pytest.mark.slow]


class GatewayProcess:
    """`python -m services.gateway`, to be killed and started again on the same port."""

    def __init__(self, settings: GatewaySettings, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._environment = os.environ | {
            "SERVICE_TOKEN": TOKEN,
            "PORT": str(port),
            "DATA_ROOT": str(settings.data_root),
            "MODELS_ROOT": str(settings.models_root),
            "ASSETS_ROOT": str(settings.assets_root),
            "DATABASE_URL": settings.database_url,
            "NATS_URL": settings.nats_url,
            "ADMIN_PASSWORD": "a-long-password",
            "ACK_WAIT": "2",
            "HEARTBEAT": "0.5",
            "LEASE_TTL": "2",
            "DRAIN_TIMEOUT": "600",  # longer than any test waits for a gateway that is asked to go
            "OUTBOX_POLL": "0.1",
            "OUTBOX_CLAIM": "1",
            "PROGRESS_WRITE": "0.2",
            "HEARTBEAT_COMMENT": "0.3",
            "LOG_FILES": "false",
        }
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        root = Path(__file__).parents[3]
        command = [sys.executable, "-m", "services.gateway"]
        self._process = await asyncio.to_thread(subprocess.Popen, command, cwd=root, env=self._environment)
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(PATIENCE):
            while True:
                assert self._process.poll() is None, "the gateway ended by itself"
                try:
                    if (await client.get(f"{self.url}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.1)

    def ask_to_go(self) -> int:
        """SIGTERM; the exit code, once it went."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(PATIENCE)
        self._process = None
        return code

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(PATIENCE)
            self._process = None


@pytest.fixture
async def process(settings: GatewaySettings, database: Database) -> AsyncIterator[GatewayProcess]:
    process = GatewayProcess(settings, free_port())
    await process.start()
    yield process
    process.kill()


@pytest.fixture
async def house(process: GatewayProcess, settings: GatewaySettings, database: Database) -> AsyncIterator[House]:
    """The same house, with the gateway in a process of its own."""
    from fastapi import FastAPI

    house = House(settings, database, FastAPI(), process.url)
    yield house
    for client in house.clients:
        await client.aclose()


@SOON_AGAIN
async def test_a_gateway_killed_in_the_middle_loses_and_doubles_nothing(
    house: House, process: GatewayProcess, workers: Workers, bus: Bus, nats_server: NatsServer
) -> None:
    anna = await house.person()
    jobs = [await house.train(anna, await house.dataset(anna, f"voice-{number}")) for number in range(3)]
    watcher = Watcher(
        f"{house.url}/api/v1/training/jobs/{jobs[0]['id']}/events", {"Authorization": f"Bearer {anna.token}"}
    )
    watching = asyncio.create_task(watcher.until_over())
    await watcher.has_begun()
    workers.work()

    for phase in ("preprocess", "index"):
        await house.wait(anna, jobs[0]["id"], lambda job, phase=phase: job["phase"] == phase)
        process.kill()
        await asyncio.sleep(0.3)
        await process.start()
    nats_server.kill()
    await asyncio.sleep(0.3)
    nats_server.start()
    for job in jobs:
        await house.wait_status(anna, job["id"], "completed")
    await watching

    ids = [sequence for sequence, _, _ in watcher.following]
    head, _ = await bus.feed_head(jobs[0]["id"])
    stream = []
    async for sequence, _ in bus.feed(jobs[0]["id"], watcher.events[0][0]):
        stream.append(sequence)
        if sequence >= head:
            break
    assert ids == stream
    assert [name for _, name, _ in watcher.events].count("snapshot") == 1
    versions = [data["version"] for _, name, data in watcher.following if name == "state"]
    assert versions == sorted(set(versions))
    done = [(command.job_id, command.step) for command in workers.seen]
    assert len(set(done)) == 18


async def test_a_gateway_killed_right_after_its_answer_has_kept_its_word(
    house: House, process: GatewayProcess, workers: Workers
) -> None:
    anna = await house.person()
    datasets = [await house.dataset(anna, f"voice-{number}") for number in range(6)]

    jobs = await asyncio.gather(*(house.train(anna, dataset) for dataset in datasets))
    process.kill()
    workers.work()
    await process.start()

    over = [await house.wait_status(anna, job["id"], "completed") for job in jobs]
    assert [job["attempt"] for job in over] == [1] * 6
    assert len({(command.job_id, command.step) for command in workers.seen}) == 6 * 6


async def test_a_gateway_that_is_asked_to_go_does_not_wait_for_its_feeds(house: House, process: GatewayProcess) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = Watcher(f"{house.url}/api/v1/training/jobs/{job['id']}/events", {"Authorization": f"Bearer {anna.token}"})
    watching = asyncio.create_task(watcher.once())
    await watcher.has_begun()

    code = await asyncio.to_thread(process.ask_to_go)

    await asyncio.wait_for(watching, PATIENCE)
    assert code in (0, -signal.SIGTERM)
