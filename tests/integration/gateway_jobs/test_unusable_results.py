"""Does a job end with a reason when what its worker says cannot be read, stored or applied?"""

from __future__ import annotations

import json

import nats
import pytest
from sqlalchemy import select

from libs.common.errors import WorkFailed
from libs.common.events import wrap
from libs.common.jobs import Step
from services.gateway.voices.tables import Voice
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, House
from tests.integration.gateway_jobs.scripted_workers import Taken, Workers, finished, ordinary

pytestmark = BOTH_DATABASES


async def test_a_result_that_cannot_be_read_fails_the_job_with_the_reason(
    house: House, workers: Workers, nats_server: NatsServer
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    event = finished(taken.command, taken.paths, 1, [])
    envelope = wrap(event, id="odd", subject=event.subject(), service="ingest")
    del envelope.data["recordings"]
    client = await nats.connect(nats_server.url)

    await client.jetstream().publish(event.subject(), envelope.model_dump_json().encode())
    await client.jetstream().publish("evt.job.x.step_failed", b"no json at all")
    failed = await house.wait_status(anna, job["id"], "failed")
    await client.close()

    assert failed["error"]["code"] == "work_failed"
    assert "recordings" in failed["error"]["detail"]


async def test_a_result_that_can_never_be_applied_fails_the_job(house: House, workers: Workers) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    job = await house.train(anna, await house.dataset(anna))
    async with house.database.write() as session:  # somebody took the voice's place
        voice = (await session.scalars(select(Voice))).one()
        voice.owner_id = ben.id
    workers.work()

    failed = await house.wait_status(anna, job["id"], "failed")

    assert failed["error"]["code"] == "conflict"
    assert failed["phase"] == "publish"


@pytest.mark.parametrize("odd", ["NUL \0", "half a letter \ud800"])
async def test_a_result_that_the_database_does_not_take_fails_the_job_or_is_kept_and_never_waits(
    house: House, workers: Workers, database_kind: str, odd: str
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))

    async def work(taken: Taken) -> None:
        if taken.command.step is Step.publish:
            event = finished(taken.command, taken.paths, 1, []).model_copy(update={"card": {"name": odd}})
            envelope = wrap(event, id=f"{event.job_id}.odd", subject=event.subject(), service="trainer")
            payload = json.dumps(envelope.model_dump(mode="python"), default=str).encode()
            await taken.bus._js.publish(event.subject(), payload)
            await taken.delivery.ack()
        else:
            await ordinary(taken)

    workers.work(work)
    over = await house.wait(anna, job["id"], lambda found: found["status"] in ("failed", "completed"))

    if database_kind == "postgresql" or "half" in odd:
        assert over["status"] == "failed"
        assert over["error"]["code"] == "work_failed"
    else:
        assert over["status"] == "completed"  # SQLite keeps NUL


async def test_a_number_that_no_column_holds_fails_the_job(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))

    async def work(taken: Taken) -> None:
        if taken.command.step is Step.publish:
            event = finished(taken.command, taken.paths, 1, []).model_copy(update={"sample_rate": 2**70})
            await taken._say(event)
            await taken.delivery.ack()
        else:
            await ordinary(taken)

    workers.work(work)
    failed = await house.wait_status(anna, job["id"], "failed")

    assert "the database does not take" in failed["error"]["detail"]
    assert failed["phase"] == "publish"


async def test_a_failure_whose_reason_the_database_does_not_take_fails_the_job(
    house: House, workers: Workers, database_kind: str
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()

    await taken.fail(WorkFailed("a file named \0"))
    failed = await house.wait_status(anna, job["id"], "failed")

    if database_kind == "postgresql":
        assert "the database does not take" in failed["error"]["detail"]
    else:
        assert failed["error"]["detail"] == "a file named \0"
