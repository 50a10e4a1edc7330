"""Do people take turns at the workers, however much one of them asks for? With a real broker and both databases."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from libs.common.bus import Bus
from libs.common.jobs import Step
from libs.common.tasks import end
from services.gateway.database import Database
from services.gateway.jobs.relay import Relay
from services.gateway.jobs.turns import Turn
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, House, Person
from tests.integration.gateway_jobs.scripted_workers import Taken, Workers
from tests.waiting import until

pytestmark = BOTH_DATABASES


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    """One command of a lane waits at the broker at a time."""
    return settings.model_copy(update={"queue_ahead": 1})


async def ask(house: House, owner: Person, count: int, **more: object) -> list[str]:
    """Trainings of somebody; returns their ids."""
    slugs = [f"{owner.id[-6:].lower()}-{number}" for number in range(count)]
    return [str((await house.train(owner, await house.dataset(owner, slug), **more))["id"]) for slug in slugs]


async def waiting(database: Database) -> int:
    async with database.read() as session:
        return int(await session.scalar(select(func.count()).where(Turn.given_at.is_(None))) or 0)


async def validated(house: House, workers: Workers, count: int) -> Taken:
    """Does the first step of so many jobs; returns the first command of the second step, which came meanwhile."""
    first = None
    done = 0
    while done < count or first is None:
        taken = await workers.take()
        if taken.command.step is Step.validate:
            await taken.start()
            await taken.finish()
            done += 1
        else:
            assert first is None, "a second command came while the first one waited"
            first = taken

    async def others_wait() -> bool:
        return await waiting(house.database) == count - 1

    await until(others_wait)
    return first


async def test_whoever_asks_for_one_waits_for_one_and_not_for_the_heap_of_another(
    house: House, workers: Workers
) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    heap = await ask(house, anna, 4)
    [single] = await ask(house, ben, 1)
    taken = await validated(house, workers, 5)

    order = [taken.command.job_id]
    for _ in range(4):
        assert await workers.is_idle(0.3)  # the next one comes when this one is begun, and not before
        await taken.start()
        taken = await workers.take()
        order.append(taken.command.job_id)

    assert order[0] in heap
    assert order[1] == single
    assert set(order[2:]) < set(heap)
    assert await waiting(house.database) == 0


async def test_a_higher_lane_does_not_wait_for_a_lower_one(house: House, workers: Workers) -> None:
    anna = await house.person("anna")
    await ask(house, anna, 2)
    first = await validated(house, workers, 2)
    [urgent] = await ask(house, await house.person("ben"), 1, priority=90)

    taken = await workers.take()
    await taken.start()
    await taken.finish()

    assert first.command.step is Step.preprocess
    assert (await workers.take()).command.job_id == urgent


async def test_a_job_that_is_cancelled_while_it_waits_for_its_turn_never_reaches_a_worker(
    house: House, workers: Workers
) -> None:
    anna = await house.person("anna")
    jobs = await ask(house, anna, 3)
    taken = await validated(house, workers, 3)
    held = [job for job in jobs if job != taken.command.job_id]

    assert (await anna.post(f"/training/jobs/{held[0]}/cancel")).status_code in (200, 202)
    await taken.start()
    following = await workers.take()
    await following.start()

    assert (await house.wait_status(anna, held[0], "cancelled"))["status"] == "cancelled"
    assert following.command.job_id == held[1]
    assert await workers.is_idle()
    assert await waiting(house.database) == 0


async def test_two_gateways_together_send_no_more_than_one_would(
    house: House, workers: Workers, database: Database, bus: Bus
) -> None:
    other = Relay(database, bus, poll=timedelta(seconds=0.02), max_retries=3, ahead=1)
    beside = asyncio.create_task(other.run())
    try:
        await ask(house, await house.person("anna"), 5)
        taken = await validated(house, workers, 5)

        assert await workers.is_idle()
        await taken.start()
        assert (await workers.take()).command.step is Step.preprocess
        assert await workers.is_idle()
    finally:
        await end([beside])


async def test_a_heap_of_trainings_is_done_to_the_last_one(house: House, workers: Workers) -> None:
    anna = await house.person("anna")
    jobs = await ask(house, anna, 5)
    workers.work()

    for job in jobs:
        await house.wait_status(anna, job, "completed")

    assert await waiting(house.database) == 0
    assert [one.step for one in workers.seen].count(Step.train) == 5
