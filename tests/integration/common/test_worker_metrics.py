"""What Prometheus learns of a worker: waits, failures with their reason, what is in hand, whose owner died."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from libs.common.bus import Bus
from libs.common.errors import StorageFull, WorkFailed
from libs.common.events import DatasetPrepared, PrepareDataset
from libs.common.jobs import Lane
from libs.common.leases import Lease, Leases
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.common.work import Done, Work
from libs.common.worker import Worker
from tests.conftest import NatsServer
from tests.hearing import Events
from tests.integration.common.worker_processes import command
from tests.waiting import until


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


class Script:
    """A handler that does what a test tells it."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.failures: list[Exception] = []

    async def __call__(self, work: Work[PrepareDataset]) -> Done:
        self.begun.set()
        await self.go_on.wait()
        if self.failures:
            raise self.failures.pop(0)
        facts = {"dataset": "anna", "pieces": 0, "seconds": 1.0, "voiced_ratio": 0.5, "sample_rate": 32000}
        return Done(DatasetPrepared, facts | {"content_encoder": {}, "f0_method": "none"})


@pytest.fixture
async def script(bus: Bus, settings: CommonSettings, paths: Paths) -> AsyncIterator[Script]:
    """A worker in this process, whose metrics the test can read."""
    script = Script()
    worker = Worker(bus, settings, paths, slots=1, info={"device": "test"})
    worker.on(PrepareDataset, script)
    await worker.start()
    yield script
    script.go_on.set()
    await worker.drain()


async def test_a_command_tells_how_long_it_waited_and_that_it_is_in_hand(
    bus: Bus, script: Script, events: Events
) -> None:
    waits = value("voicewright_queue_wait_seconds_count", step="preprocess", lane="high")
    held = value("voicewright_leases_held", step="preprocess")
    await bus.send_command(command(), Lane.high)

    await script.begun.wait()

    assert value("voicewright_queue_wait_seconds_count", step="preprocess", lane="high") == waits + 1
    assert value("voicewright_leases_held", step="preprocess") == held + 1
    script.go_on.set()
    await events.wait_for("prepared")
    await until(lambda: value("voicewright_leases_held", step="preprocess") == held)


async def test_every_failed_attempt_is_counted_with_its_reason(bus: Bus, script: Script, events: Events) -> None:
    def count(code: str, verdict: str) -> float:
        return value("voicewright_work_failures_total", step="preprocess", code=code, verdict=verdict)

    before = count("storage_full", "retry"), count("work_failed", "final")
    script.failures = [StorageFull("the test's disk is full once"), WorkFailed("the test refuses")]
    script.go_on.set()

    await bus.send_command(command(), Lane.normal)
    await events.wait_for("step_failed")

    assert (count("storage_full", "retry"), count("work_failed", "final")) == (before[0] + 1, before[1] + 1)


async def test_a_step_that_is_taken_from_a_silent_worker_is_counted_and_one_given_back_is_not(
    bus: Bus, settings: CommonSettings
) -> None:
    ttl = settings.heartbeat / 100
    first, second = (Leases(bus.bucket("leases"), name, ttl) for name in ("first", "second"))

    def count() -> float:
        return value("voicewright_leases_taken_over_total", step="train")

    before = count()
    claim = await first.acquire("job_9", "train", 1)
    assert isinstance(claim, Lease)
    await asyncio.sleep(2 * ttl.total_seconds())
    taken = await second.acquire("job_9", "train", 1)
    assert isinstance(taken, Lease)
    assert count() == before + 1

    await taken.release()
    assert isinstance(await first.acquire("job_9", "train", 1), Lease)
    assert count() == before + 1


async def test_whether_the_broker_is_there_is_told(bus: Bus, nats_server: NatsServer) -> None:
    def is_connected() -> bool:
        return value("voicewright_broker_connected", client="preprocessor") == 1.0

    assert is_connected()
    nats_server.kill()
    await until(lambda: not is_connected())
    nats_server.start()
    await until(is_connected)
