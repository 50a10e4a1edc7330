"""Does somebody who comes back late get what they missed, or else a snapshot, and never a silent gap?"""

from __future__ import annotations

import pytest

from libs.common.bus import Bus
from libs.common.events import StepProgress
from libs.common.jobs import JobState, Step
from services.gateway.jobs import feed
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_jobs.conftest import House
from tests.integration.gateway_jobs.watching import until_end_is_told
from tests.waiting import until

MOST = 100


@pytest.fixture
def settings(settings: GatewaySettings) -> GatewaySettings:
    """A feed that keeps few messages."""
    return settings.model_copy(update={"progress_max_per_job": MOST})


async def _tell(bus: Bus, job_id: str, count: int) -> int:
    """`count` lines of progress; returns the newest sequence."""
    head = (await bus.feed_head(job_id))[0]
    for number in range(count):
        await bus.publish_progress(StepProgress(job_id=job_id, step=Step.train, done=number))

    async def newest() -> int | None:
        found: int = (await bus.feed_head(job_id))[0]
        return found if found >= head + count else None

    return int(await until(newest))


async def test_an_id_whose_followers_were_dropped_gets_a_snapshot_again(house: House, bus: Bus) -> None:
    anna = await house.person()
    other = await house.train(anna, await house.dataset(anna, "other"))
    job = await house.train(anna, await house.dataset(anna, "anna"))
    await _tell(bus, other["id"], 1)
    seen = await _tell(bus, job["id"], 10)

    soon = await feed.begin(house.database, bus, job["id"], seen, 3)
    await _tell(bus, job["id"], MOST + 20)
    late = await feed.begin(house.database, bus, job["id"], seen, 3)

    assert soon is not None
    assert (soon.after, soon.snapshot) == (seen, None)
    assert late is not None
    assert late.snapshot is not None
    assert late.after == late.head > seen


async def test_an_id_of_another_jobs_feed_gets_a_snapshot(house: House, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna, "anna"))
    other = await house.train(anna, await house.dataset(anna, "other"))
    foreign = await _tell(bus, other["id"], 1)
    await _tell(bus, job["id"], 1)

    start = await feed.begin(house.database, bus, job["id"], foreign, 3)

    assert start is not None
    assert start.snapshot is not None


async def test_a_job_that_ended_before_the_stream_began_is_told_once(house: House, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await anna.post(f"/training/jobs/{job['id']}/cancel")
    await until_end_is_told(bus, job["id"], JobState.cancelled)
    await house.until_all_is_sent()  # it is sent a moment before it is marked as sent
    await bus._js.purge_stream("PROGRESS")

    first = await feed.begin(house.database, bus, job["id"], None, 3)
    again = await feed.begin(house.database, bus, job["id"], 0, 3)

    assert first is not None
    assert first.snapshot is not None
    assert first.is_over
    assert again is None
