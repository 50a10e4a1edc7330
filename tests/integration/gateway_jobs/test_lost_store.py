"""The broker comes back without its store: is every job that went on completed all the same?"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from sqlalchemy import select, update

from libs.common.bus import Bus
from libs.common.jobs import Step
from services.gateway.database import Database
from services.gateway.jobs import outbox
from services.gateway.jobs.continuity import KEY, Continuity
from services.gateway.jobs.tables import BrokerStore, Job, Outgoing
from services.gateway.settings import GatewaySettings
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import SOON_AGAIN, House, Person
from tests.integration.gateway_jobs.scripted_workers import Taken, Workers, ordinary
from tests.waiting import PATIENCE

pytestmark = SOON_AGAIN


async def _identity(house: House) -> str:
    async with house.database.read() as session:
        row = await session.scalar(select(BrokerStore))
    return row.identity if row is not None else ""


async def _known(house: House, other_than: str = "") -> str:
    """The identity of the broker's store, once the gateway knows it."""
    async with asyncio.timeout(PATIENCE):
        while not (found := await _identity(house)) or found == other_than:  # noqa: ASYNC110  # a row in a database
            await asyncio.sleep(0.05)
    return found


async def test_a_queued_job_completes_though_the_broker_lost_its_command(
    house: House, workers: Workers, nats_server: NatsServer
) -> None:
    anna = await house.person()
    first = await _known(house)
    job = await house.train(anna, await house.dataset(anna))
    await house.until_all_is_sent()

    await asyncio.to_thread(nats_server.lose_store)
    second = await _known(house, other_than=first)
    workers.work()
    over = await house.wait_status(anna, job["id"], "completed")

    assert second != first
    assert over["attempt"] == 1
    lines = (await anna.get(f"/training/jobs/{job['id']}/logs")).json()["items"]
    assert any("the broker has lost its store" in line["message"] for line in lines)


async def test_a_running_job_goes_on_with_a_higher_token_and_its_progress_is_taken_from_the_new_stream(
    house: House, workers: Workers, nats_server: NatsServer, bus: Bus
) -> None:
    anna = await house.person()
    first = await _known(house)
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    taken.token = 3
    await taken.start()
    for number in range(30):
        await taken.progress(0.01 * number, done=number, total=100)
    await house.wait(anna, job["id"], lambda found: found["current_step"] == 29)

    await asyncio.to_thread(nats_server.lose_store)
    await _known(house, other_than=first)
    async with house.database.read() as session:
        states = select(Outgoing).where(Outgoing.job_id == job["id"], Outgoing.kind == outbox.STATE)
        told = (await session.scalars(states.order_by(Outgoing.id.desc()))).first()
    again = await workers.take()
    again.token = again.command.after_token + 1
    await again.start()
    moved = await _told_until(house, anna, job["id"], again)
    await again.finish()
    following = await workers.take()
    projected = json.loads((await bus.bucket("jobs").get(job["id"])).value)  # type: ignore[union-attr]

    assert (again.command.step, again.command.attempt, again.command.after_token) == (Step.validate, 1, 3)
    assert told is not None
    assert told.payload["data"]["queue_state"] == "waiting"
    assert moved["status"] == "running"
    assert following.command.step is Step.preprocess
    assert projected["id"] == job["id"]


async def _told_until(house: House, owner: Person, job_id: str, taken: Taken) -> dict[str, Any]:
    """The job once it shows what its worker tells again and again, as workers do."""

    async def tell() -> None:
        while True:
            await taken.progress(0.5, done=50, total=100)
            await asyncio.sleep(0.2)

    telling = asyncio.create_task(tell())
    try:
        return await house.wait(owner, job_id, lambda found: bool(found["current_step"] == 50))
    finally:
        telling.cancel()


async def test_a_wish_to_stop_outlives_the_brokers_store(
    house: House, workers: Workers, nats_server: NatsServer, bus: Bus
) -> None:
    anna = await house.person()
    first = await _known(house)
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    await house.wait(anna, job["id"], lambda found: found["queue_state"] == "active")
    await anna.post(f"/training/jobs/{job['id']}/cancel")

    await asyncio.to_thread(nats_server.lose_store)
    await _known(house, other_than=first)
    again = await workers.take()

    assert again.command.job_id == job["id"]
    assert await bus.bucket("control").get(f"cancel.{job['id']}") is not None
    await again.cancelled()
    await house.wait_status(anna, job["id"], "cancelled")


async def test_ended_jobs_are_not_told_again_but_are_in_the_projection(
    house: House, workers: Workers, nats_server: NatsServer, bus: Bus
) -> None:
    anna = await house.person()
    first = await _known(house)
    job = await house.train(anna, await house.dataset(anna))
    workers.work(ordinary)
    await house.wait_status(anna, job["id"], "completed")
    done = len(workers.seen)

    await asyncio.to_thread(nats_server.lose_store)
    await _known(house, other_than=first)
    async with asyncio.timeout(PATIENCE):
        while (entry := await bus.bucket("jobs").get(job["id"])) is None:  # noqa: ASYNC110  # a key of the broker
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.5)

    assert json.loads(entry.value)["status"] == "completed"
    assert len(workers.seen) == done


async def test_a_store_that_is_known_is_left_alone_and_two_gateways_tell_a_new_one_once(
    house: House, workers: Workers, database: Database, bus: Bus, settings: GatewaySettings
) -> None:
    anna = await house.person()
    identity = await _known(house)
    job = await house.train(anna, await house.dataset(anna))
    await workers.take()
    looks = [Continuity(database, bus, settings.broker_look, 3) for _ in range(2)]

    same = [await look.look() for look in looks]
    async with database.write() as session:
        await session.execute(update(BrokerStore).values(identity="another broker"))
    told = await asyncio.gather(*(look.look() for look in looks))

    assert same == [0, 0]
    assert sum(told) <= 1  # the gateway itself may have been the one
    assert await _identity(house) == identity
    assert (await bus.bucket("control").get(KEY)).value.decode() == identity  # type: ignore[union-attr]
    async with database.read() as session:
        assert (await session.get(Job, job["id"])).queue_state == "waiting"  # type: ignore[union-attr]
