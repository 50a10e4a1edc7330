"""Does somebody who watches a job see everything once, in order, whatever breaks meanwhile?"""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.bus import Bus
from libs.common.events import JobChanged, StepProgress
from libs.common.jobs import Step
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import SOON_AGAIN, House, Person
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.integration.gateway_jobs.watching import Watcher, until_end_is_told
from tests.waiting import PATIENCE, until


def watch(house: House, person: Person, job: dict[str, Any]) -> Watcher:
    return Watcher(f"{house.url}/api/v1/training/jobs/{job['id']}/events", {"Authorization": f"Bearer {person.token}"})


async def stream_of(bus: Bus, job_id: str) -> list[int]:
    """All sequences of the job's feed, up to the newest."""
    head, _ = await bus.feed_head(job_id)
    sequences = []
    async for sequence, _ in bus.feed(job_id, 0):
        sequences.append(sequence)
        if sequence >= head:
            break
    return sequences


async def test_a_feed_is_a_snapshot_then_what_follows_then_the_end(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await house.until_all_is_sent()
    watcher = watch(house, anna, job)
    watching = asyncio.create_task(watcher.once())
    await watcher.has_begun()
    workers.work()

    await asyncio.wait_for(watching, PATIENCE)

    sequence, name, data = watcher.events[0]
    assert name == "snapshot"
    assert data["sequence"] == sequence
    assert data["job"]["id"] == job["id"]
    assert [s for s, _, _ in watcher.following] == [s for s in await stream_of(bus, job["id"]) if s > sequence]
    progress = [data for _, name, data in watcher.following if name == "progress"]
    assert len(progress) == 12
    assert {"fraction", "loss", "eta_seconds", "step", "progress"} <= set(progress[0])
    assert [p["progress"] for p in progress] == sorted(p["progress"] for p in progress)
    assert watcher.following[-1][1] == "state"
    assert watcher.following[-1][2]["status"] == "completed"


async def test_a_client_that_comes_back_goes_on_after_its_last_id(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    await watcher.once(stop_after=1)
    workers.work()

    while watcher.status != 204:
        await watcher.once(stop_after=3)

    assert sum(name == "snapshot" for _, name, _ in watcher.events) == 1
    ids = [sequence for sequence, _, _ in watcher.following]
    assert ids == [s for s in await stream_of(bus, job["id"]) if s > watcher.events[0][0]]
    assert watcher.connections > 3


async def test_a_late_watcher_gets_a_snapshot_of_the_end_and_no_more(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    workers.work()
    await house.wait_status(anna, job["id"], "completed")
    await until_end_is_told(bus, job["id"])
    watcher = watch(house, anna, job)

    await asyncio.wait_for(watcher.once(), PATIENCE)
    await asyncio.wait_for(watcher.once(), PATIENCE)

    assert [name for _, name, _ in watcher.events] == ["snapshot"]
    assert watcher.events[0][2]["job"]["status"] == "completed"
    assert watcher.status == 204


async def test_an_id_older_than_the_stream_gets_a_snapshot_again(
    house: House, workers: Workers, bus: Bus, nats_server: NatsServer
) -> None:
    import nats

    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    await house.wait_status(anna, job["id"], "running")
    await house.until_all_is_sent()
    client = await nats.connect(nats_server.url)
    head, _ = await bus.feed_head(job["id"])
    await client.jetstream().purge_stream("PROGRESS", seq=head)  # all before the newest message
    await client.close()

    older, present, future = watch(house, anna, job), watch(house, anna, job), watch(house, anna, job)
    older.last_id, present.last_id, future.last_id = "0", str(head), str(head + 1000)
    await older.once(stop_after=1)
    await future.once(stop_after=1)
    ending = asyncio.create_task(present.once(stop_after=1))
    await taken.progress(0.5)
    await asyncio.wait_for(ending, PATIENCE)

    assert older.events[0][:2] == (head, "snapshot")
    assert future.events[0][:2] == (head, "snapshot")
    assert present.events[0][1] == "progress"


async def test_a_silent_feed_sends_comments(house: House) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    watching = asyncio.create_task(watcher.once())

    await until(lambda: watcher.comments >= 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert watcher.status == 200


async def test_a_retried_job_is_watched_past_its_first_end(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    await watcher.once(stop_after=1)
    await (await workers.take()).fail()
    await house.wait_status(anna, job["id"], "failed")
    await anna.post(f"/training/jobs/{job['id']}/retry")
    workers.work()
    await house.wait_status(anna, job["id"], "completed")
    await until_end_is_told(bus, job["id"])

    await watcher.once()

    states = [data["status"] for _, name, data in watcher.following if name == "state"]
    assert states.index("failed") < states.index("completed")
    assert [s for s, _, _ in watcher.following] == [
        s for s in await stream_of(bus, job["id"]) if s > watcher.events[0][0]
    ]


@SOON_AGAIN
async def test_a_broker_that_is_killed_leaves_no_gap_and_no_doubling(
    house: House, workers: Workers, bus: Bus, nats_server: NatsServer
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    watching = asyncio.create_task(watcher.until_over())
    await watcher.has_begun()
    workers.work()
    await house.wait(anna, job["id"], lambda j: j["phase"] in ("preprocess", "train"))

    nats_server.kill()
    await asyncio.sleep(0.7)
    nats_server.start()
    await house.wait_status(anna, job["id"], "completed")
    await watching

    ids = [sequence for sequence, _, _ in watcher.following]
    assert ids == [s for s in await stream_of(bus, job["id"]) if s > watcher.events[0][0]]
    assert watcher.following[-1][2]["status"] == "completed"


async def test_a_state_that_was_sent_twice_is_told_once(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    watching = asyncio.create_task(watcher.once())
    await watcher.has_begun()
    changed = JobChanged(job_id=job["id"], state="running", version=50)

    await bus.publish_state(changed, message_id="first")
    await bus.publish_state(changed, message_id="much later")
    for fraction in (0.1, 0.2):
        await bus.publish_progress(StepProgress(job_id=job["id"], step=Step.validate, fraction=fraction, token=1))
    await until(lambda: sum(name == "progress" for _, name, _ in watcher.following) == 2)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)

    # The gateway tells the job's own states as well, and when these come relative to ours is not fixed.
    ours = [name for _, name, data in watcher.following if name == "progress" or data["version"] == 50]
    assert ours == ["state", "progress", "progress"]
    versions = [data["version"] for _, name, data in watcher.following if name == "state"]
    assert len(versions) == len(set(versions))


async def _sent_again(bus: Bus, job_id: str) -> int:
    """The newest state of a job once more, as a relay sends it that was down for longer than the broker remembers."""
    found: list[tuple[int, Any]] = []
    head, _ = await bus.feed_head(job_id)
    async for sequence, envelope in bus.feed(job_id, 0):
        if isinstance(envelope.open(), JobChanged):
            found.append((sequence, envelope))
        if sequence >= head:
            break
    _, envelope = found[-1]
    payload = envelope.model_dump_json().encode()
    return await bus._publish_raw(envelope.subject, payload, f"{envelope.id} after the duplicate window")


async def test_a_state_that_was_sent_twice_is_told_once_to_a_client_that_left_in_between(
    house: House, workers: Workers, bus: Bus
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    watcher = watch(house, anna, job)
    await watcher.once(stop_after=1)
    await taken.start()
    while not any(data.get("state") == "running" for _, _, data in watcher.following):
        await watcher.once(stop_after=1)

    again = await _sent_again(bus, job["id"])
    await taken.progress(0.5, done=5, total=10)
    await watcher.once(stop_after=1)

    assert watcher.events[-1][1] == "progress"
    assert watcher.events[-1][0] > again
    versions = [data["version"] for _, name, data in watcher.following if name == "state"]
    assert versions == sorted(set(versions))


async def test_an_end_that_was_sent_twice_is_told_once(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    watcher = watch(house, anna, job)
    workers.work()
    await watcher.until_over()
    seen = len(watcher.events)

    await _sent_again(bus, job["id"])
    watcher.status = 0
    await watcher.until_over()

    assert watcher.status == 204
    assert len(watcher.events) == seen
    ends = [data for _, name, data in watcher.events if name == "state" and data["state"] == "completed"]
    assert len(ends) == 1
