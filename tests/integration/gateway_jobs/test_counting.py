"""What Prometheus learns from the gateway: how jobs ended, how full queues and streams are, who works."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families

from libs.common.bus import Bus
from libs.common.errors import TrainingDiverged
from libs.common.events import ValidateDataset
from libs.common.jobs import Lane, Step
from libs.common.tasks import end
from services.gateway.jobs import counting
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import House
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.waiting import until


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


async def test_a_job_that_ends_is_counted_once_with_its_kind_its_end_and_its_reason(
    house: House, workers: Workers
) -> None:
    def failed() -> tuple[float, float]:
        return (
            value("voicewright_job_seconds_count", kind="training", state="failed") or 0.0,
            value("voicewright_job_failures_total", kind="training", code="training_diverged") or 0.0,
        )

    before = failed()
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()

    await taken.fail(TrainingDiverged("the losses became NaN"))
    await house.wait_status(anna, job["id"], "failed")

    assert failed() == (before[0] + 1, before[1] + 1)


async def test_queues_streams_and_workers_are_told_and_taken_back_while_the_broker_is_away(
    house: House, bus: Bus, nats_server: NatsServer
) -> None:
    await house.reach_broker()
    parts = house.app.state.parts
    command = ValidateDataset(job_id="job_1", step=Step.validate, experiment="anna", dataset="anna", inputs=())
    as_worker = Bus(bus._nc, house.settings, "ingest")
    await as_worker.commands(Lane.high).ensure()
    await bus.send_command(command, Lane.high)
    await bus._js.publish("dead.cmd.ingest.validate.high", b"{}")
    await bus.bucket("workers").put("trainer-node-1", json.dumps({}).encode())

    await counting.count_broker(parts)

    assert value("voicewright_queue_commands", service="ingest", lane="high", state="pending") == 1
    assert value("voicewright_queue_commands", service="ingest", lane="high", state="unacknowledged") == 0
    assert value("voicewright_stream_messages", stream="DEADLETTERS") == 1
    assert (value("voicewright_stream_limit_bytes", stream="COMMANDS") or 0) == house.settings.commands_max_bytes
    assert value("voicewright_workers", service="trainer") == 1
    assert value("voicewright_workers", service="ingest") == 0

    nats_server.kill()
    counts_on = asyncio.create_task(counting.run(parts))  # beside the gateway's own, whose next turn is seconds away
    await until(lambda: value("voicewright_stream_messages", stream="DEADLETTERS") is None)
    assert value("voicewright_workers", service="trainer") is None
    await end([counts_on])


async def test_what_the_broker_has_not_heard_yet_is_told_with_its_age(house: House, nats_server: NatsServer) -> None:
    await house.reach_broker()
    await house.until_all_is_sent()
    nats_server.kill()
    anna = await house.person()
    await house.train(anna, await house.dataset(anna))

    await counting.count_jobs(house.app.state.parts)

    assert (value("voicewright_outbox_unsent_messages") or 0) > 0
    assert (value("voicewright_outbox_oldest_seconds") or 0) > 0
    assert value("voicewright_jobs", state="waiting") == 1


async def test_what_is_taken_of_the_days_budget_is_told_with_its_limit(house: House) -> None:
    await house.reach_broker()
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))

    await counting.count_jobs(house.app.state.parts)

    assert value("voicewright_training_budget_taken") == pytest.approx(job["estimated_cost"])
    assert value("voicewright_training_budget_limit") == house.settings.daily_training_budget


async def test_the_metrics_can_be_read_by_prometheus_without_a_token(house: House) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.get(f"{house.url}/metrics")

    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"voicewright_disk_free_bytes", "voicewright_jobs", "voicewright_http_requests"} <= names
