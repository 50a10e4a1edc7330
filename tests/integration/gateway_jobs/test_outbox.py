"""Do the database and the bus agree, whatever fails in between?"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi import FastAPI
from sqlalchemy import select, update

from libs.common.bus import Bus
from libs.common.events import JobChanged, TrainingOptions
from libs.common.jobs import JobKind, Step
from services.gateway.database import Database, utcnow
from services.gateway.jobs import lifecycle, outbox, projection
from services.gateway.jobs.rebuild import rebuild
from services.gateway.jobs.relay import Relay
from services.gateway.jobs.tables import Incoming, Job, Outgoing
from services.gateway.settings import GatewaySettings
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, SOON_AGAIN, House, running_house
from tests.integration.gateway_jobs.scripted_workers import Taken, Workers, ordinary
from tests.waiting import PATIENCE, until

pytestmark = BOTH_DATABASES


async def _fill(database: Database, jobs: int, each: int) -> None:
    """States of some jobs, as transitions would leave them."""
    async with database.write() as session:
        for version in range(1, each + 1):
            for number in range(jobs):
                changed = JobChanged(job_id=f"job_{number}", state="running", version=version)
                outbox.state(session, changed, utcnow())


async def _stream(bus: Bus, job_id: str, count: int) -> list[int]:
    """The versions in a job's feed, in their order."""
    versions = []
    async with asyncio.timeout(PATIENCE):
        async for _, envelope in bus.feed(job_id, 0):
            versions.append(envelope.data["version"])
            if len(versions) == count:
                break
    return versions


async def test_two_relays_at_once_send_everything_once_and_in_order(database: Database, bus: Bus) -> None:
    await _fill(database, jobs=20, each=5)
    relays = [Relay(database, bus, poll=timedelta(seconds=0.05), max_retries=3) for _ in range(2)]

    async def until_empty(relay: Relay) -> int:
        sent = 0
        while True:
            sent += await relay.drain()
            async with database.read() as session:
                if await outbox.unsent(session) == 0:
                    return sent
            await asyncio.sleep(0.01)

    sent = await asyncio.gather(*(until_empty(relay) for relay in relays))

    assert sum(sent) == 100
    for number in range(20):
        assert await _stream(bus, f"job_{number}", 5) == [1, 2, 3, 4, 5]
    assert (await bus.feed_head("job_19"))[0] <= 100


async def test_a_relay_that_died_after_sending_doubles_nothing(database: Database, bus: Bus) -> None:
    await _fill(database, jobs=1, each=3)
    relay = Relay(database, bus, poll=timedelta(seconds=0.05), max_retries=3)
    await relay.drain()
    async with database.write() as session:  # as if it had died before it wrote down what it sent
        await session.execute(update(Outgoing).values(sent_at=None, sequence=None))

    again = await Relay(database, bus, poll=timedelta(seconds=0.05), max_retries=3).drain()

    assert again == 3
    assert (await bus.feed_head("job_0"))[0] == 3


async def test_rows_of_a_relay_that_died_are_taken_over_when_its_claim_ends(database: Database, bus: Bus) -> None:
    await _fill(database, jobs=1, each=1)
    dead = Relay(database, bus, poll=timedelta(seconds=1), max_retries=3, claim=timedelta(minutes=5))
    await dead._take()
    relay = Relay(database, bus, poll=timedelta(seconds=1), max_retries=3)

    at_once = await relay.drain()
    async with database.write() as session:  # as if the five minutes had passed
        await session.execute(update(Outgoing).values(claimed_until=utcnow() - timedelta(seconds=1)))
    later = await relay.drain()

    assert (at_once, later) == (0, 1)


async def test_jobs_submitted_while_the_broker_is_away_are_worked_on_when_it_is_back(
    house: House, workers: Workers, nats_server: NatsServer
) -> None:
    anna = await house.person()
    datasets = [await house.dataset(anna, f"voice-{number}") for number in range(5)]
    nats_server.kill()

    jobs = [await house.train(anna, dataset) for dataset in datasets]
    await asyncio.sleep(1.0)
    states = {(await anna.get(f"/training/jobs/{job['id']}")).json()["status"] for job in jobs}
    nats_server.start()
    workers.work()

    for job in jobs:
        await house.wait_status(anna, job["id"], "completed")
    assert states == {"queued"}
    assert len({(c.job_id, c.step) for c in workers.seen}) == len(workers.seen) == 30


@SOON_AGAIN
async def test_a_broker_that_dies_in_the_middle_loses_no_job(
    house: House, workers: Workers, nats_server: NatsServer
) -> None:
    anna = await house.person()
    jobs = [await house.train(anna, await house.dataset(anna, f"voice-{number}")) for number in range(4)]
    workers.work()
    await house.wait(anna, jobs[0]["id"], lambda job: job["phase"] == "preprocess")

    nats_server.kill()
    await asyncio.sleep(0.7)
    nats_server.start()
    over = [await house.wait_status(anna, job["id"], "completed") for job in jobs]

    assert [job["error"] for job in over] == [None] * 4
    assert len({(command.job_id, command.step) for command in workers.seen}) == 4 * 6


async def test_a_job_of_more_recordings_than_a_message_holds_fails_and_says_how_many_it_may_have(
    house: House, workers: Workers
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna, "large", (10.0,) * 9000))
    failed = await house.wait_status(anna, job["id"], "failed")
    workers.work()
    small = await house.train(anna, await house.dataset(anna, "small"))
    await house.wait_status(anna, small["id"], "completed")

    error = failed["error"]
    assert error["code"] == "message_too_large"
    assert error["recordings"] == 9000
    assert "has 9000 recordings, and a job can have about 7" in error["detail"]
    async with house.database.read() as session:
        assert await outbox.unsent(session, job["id"]) == 0


async def test_a_full_command_stream_makes_the_job_wait(
    settings: GatewaySettings, database: Database, tmp_path: Path
) -> None:
    small = settings.model_copy(update={"commands_max_bytes": 4096})
    async with running_house(small, database) as house:
        anna = await house.person()
        jobs = [await house.train(anna, await house.dataset(anna, f"voice-{number}")) for number in range(8)]

        async def waiting_rows() -> int:
            async with database.read() as session:
                query = select(Outgoing).where(Outgoing.sent_at.is_(None), Outgoing.last_error.is_not(None))
                return len((await session.scalars(query)).all())

        waiting = await until(waiting_rows)
        workers = Workers(small)
        await workers.open()
        workers.work(_first_step_only)

        for job in jobs:
            await house.wait(anna, job["id"], lambda j: j["phase"] == "preprocess" or j["status"] == "running")
        await workers.close()
    assert waiting > 0


async def _first_step_only(taken: Taken) -> None:
    if taken.command.step is Step.validate:
        await ordinary(taken)
    else:
        await taken.delivery.ack()


async def test_a_rolled_back_transaction_sends_nothing(database: Database, bus: Bus) -> None:
    async def attempt() -> None:
        async with database.write() as session:
            outbox.state(session, JobChanged(job_id="job_0", state="running", version=1), utcnow())
            await session.flush()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        await attempt()

    assert await Relay(database, bus, poll=timedelta(seconds=1), max_retries=3).drain() == 0


async def test_old_rows_are_forgotten_and_present_ones_kept(database: Database, bus: Bus) -> None:
    long_ago = utcnow() - timedelta(days=40)
    await _fill(database, jobs=2, each=1)
    async with database.write() as session:
        session.add(Incoming(event_id="old", job_id="job_0", received_at=long_ago))
        session.add(Incoming(event_id="new", job_id="job_0", received_at=utcnow()))
        await session.execute(update(Outgoing).where(Outgoing.job_id == "job_0").values(sent_at=long_ago))

    await Relay(database, bus, poll=timedelta(seconds=1), max_retries=3)._sweep()

    async with database.read() as session:
        assert list(await session.scalars(select(Incoming.event_id))) == ["new"]
        assert list(await session.scalars(select(Outgoing.job_id))) == ["job_1"]


async def test_the_projection_follows_the_database_and_can_be_rebuilt(
    database: Database, workers: Workers, bus: Bus, settings: GatewaySettings
) -> None:
    bucket = bus.bucket("jobs")
    workers.work()
    async with running_house(settings, database) as house:  # afterwards no relay renews what is spoilt here
        anna = await house.person()
        job = await house.train(anna, await house.dataset(anna))
        done = await house.wait_status(anna, job["id"], "completed")

        async def is_told() -> bool:
            entry = await bucket.get(job["id"])
            return entry is not None and b'"completed"' in entry.value

        await until(is_told)
        await house.until_all_is_sent()

    await bucket.put(job["id"], b"garbage")
    await bucket.put("job_nobody", b"{}")
    written, removed = await rebuild(settings)

    entry = await bucket.get(job["id"])
    assert (written, removed) == (1, 1)
    assert entry is not None
    assert f'"version": {done["version"]}'.encode() in entry.value
    assert await bucket.get("job_nobody") is None


async def test_an_older_version_never_replaces_a_newer_one_in_the_projection(bus: Bus) -> None:
    bucket = bus.bucket("jobs")

    results = await asyncio.gather(*(projection.put(bucket, {"id": "job_0", "version": v}) for v in (3, 1, 5, 2, 4)))
    late = await projection.put(bucket, {"id": "job_0", "version": 4})

    entry = await bucket.get("job_0")
    assert entry is not None
    assert entry.value == b'{"id": "job_0", "version": 5}'
    assert any(results)
    assert late is False


async def test_a_command_that_was_cancelled_while_it_was_being_sent_is_taken_back(
    settings: GatewaySettings, database: Database, bus: Bus, workers: Workers
) -> None:
    offline = House(settings, database, FastAPI(), "http://nobody")
    anna = await offline.person()
    order = lifecycle.Order(
        id="job_1",
        owner_id=anna.id,
        kind=JobKind.preprocess,
        name="anna",
        dataset_id=await offline.dataset(anna),
        dataset="anna",
        inputs=[],
        options=TrainingOptions(),
        preset="lite",
    )
    async with database.write() as session:
        await lifecycle.open_job(session, order)
    relay = Relay(database, bus, poll=timedelta(seconds=1), max_retries=3)

    rows = await relay._take()
    async with database.write() as session:
        job = await session.get(Job, "job_1", with_for_update=True)
        assert job is not None
        await lifecycle.cancel(session, job, anna.id)
    sent = {row.id: await relay._send(row) for row in rows}
    was_there = any(row.kind == outbox.COMMAND for row in rows)
    await relay._mark(rows, sent, {})

    assert was_there
    assert await workers.is_idle()
    assert await relay.drain() > 0
    assert await bus.bucket("control").get("cancel.job_1") is not None
    for client in offline.clients:
        await client.aclose()
