"""Is what ended jobs leave behind removed after a while, and nothing before?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from libs.common.bus import Bus
from libs.common.jobs import Step
from services.gateway import sweeper
from services.gateway.database import Database, utcnow
from services.gateway.jobs import projection, tidying
from services.gateway.jobs.tables import Job
from services.gateway.settings import GatewaySettings
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import served
from tests.integration.gateway.ingest_double import IngestDouble
from tests.integration.gateway_jobs.conftest import House, Person, running_house
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.waiting import until

WEEK = 7 * 86_400.0


@pytest.fixture
async def ingest() -> AsyncIterator[tuple[IngestDouble, str]]:
    double = IngestDouble(TOKEN)
    async with served(double.app()) as url:
        yield double, url


@pytest.fixture
async def house(
    settings: GatewaySettings, database: Database, ingest: tuple[IngestDouble, str]
) -> AsyncIterator[House]:
    async with running_house(settings.model_copy(update={"ingest_url": ingest[1]}), database) as house:
        yield house


async def _failed(house: House, workers: Workers, owner: Person, slug: str) -> str:
    """A job that prepared its data and failed to train, with records of it in the broker."""
    job = await house.train(owner, await house.dataset(owner, slug))
    for token in (1, 2):
        taken = await workers.take()
        taken.token = token
        await taken.start()
        await taken.finish()
        await taken.bus.bucket("leases").put(f"{job['id']}.{taken.command.step}", b"{}")
    training = await workers.take()
    await training.start()
    await training.fail()
    await house.wait_status(owner, job["id"], "failed")
    await training.bus.bucket("control").put(f"cancel.{job['id']}", b"{}")
    return str(job["id"])


async def _ended_ago(house: House, *jobs: str) -> None:
    async with house.database.write() as session:
        ago = utcnow() - timedelta(days=8)
        await session.execute(update(Job).where(Job.id.in_(jobs)).values(finished_at=ago))


async def _kept(bus: Bus, job_id: str) -> list[str]:
    buckets = ("leases", "control", "jobs")
    return [f"{name}/{key}" for name in buckets for key in await bus.bucket(name).keys() if job_id in key]


async def test_a_job_that_ended_long_ago_is_tidied_up_after_once_and_a_younger_one_is_not(
    house: House, workers: Workers, bus: Bus, ingest: tuple[IngestDouble, str]
) -> None:
    anna = await house.person()
    old, young = [await _failed(house, workers, anna, slug) for slug in ("old", "young")]
    await house.reach_broker()
    await _ended_ago(house, old)

    for _ in range(2):
        await sweeper.sweep(house.app.state.parts)
    await projection.rebuild(house.database, bus, 3)

    keep = {"validate": 1, "preprocess": 2}
    assert ingest[0].swept == [("old", old, {"keep": keep, "older_than_seconds": WEEK})]
    assert await _kept(bus, old) == []
    assert len(await _kept(bus, young)) == 4


async def test_a_job_can_be_retried_after_it_was_tidied_up(
    house: House, workers: Workers, bus: Bus, ingest: tuple[IngestDouble, str]
) -> None:
    anna = await house.person()
    job = await _failed(house, workers, anna, "anna")
    await house.reach_broker()
    await _ended_ago(house, job)
    await sweeper.sweep(house.app.state.parts)

    answer = await anna.post(f"/training/jobs/{job}/retry")
    again = await workers.take()

    assert answer.status_code == 202
    assert again.command.step is Step.train
    assert again.command.after_token == 1, "its token is above those of the leases that are forgotten"

    async def is_projected() -> bool:
        return f"jobs/{job}" in await _kept(bus, job)

    await until(is_projected)
    async with house.database.read() as session:
        assert await session.scalar(select(Job.swept_at)) is None


async def test_a_job_that_cannot_be_tidied_up_holds_no_other_up(
    house: House, workers: Workers, bus: Bus, ingest: tuple[IngestDouble, str]
) -> None:
    anna = await house.person()
    jobs = [await _failed(house, workers, anna, slug) for slug in ("one", "two")]
    await house.reach_broker()
    await _ended_ago(house, *jobs)
    async with house.database.write() as session:
        await session.execute(update(Job).where(Job.id == jobs[0]).values(experiment="no such/place"))

    await tidying.sweep(house.app.state.parts)

    async with house.database.read() as session:
        swept = {row[0]: row[1] for row in await session.execute(select(Job.id, Job.swept_at))}
    assert swept[jobs[0]] is None
    assert swept[jobs[1]] is not None
