"""Does progress reach the row, seldom enough, and never backwards?"""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta

from libs.common.bus import Bus
from libs.common.events import StepProgress
from libs.common.jobs import Step
from services.gateway.jobs.progress import ProgressWriter
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_jobs.conftest import TOKEN, House
from tests.integration.gateway_jobs.scripted_workers import Workers


async def _training(house: House, workers: Workers) -> tuple[object, dict[str, object]]:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await (await workers.take()).start()
    return anna, await house.wait_status(anna, str(job["id"]), "running")


def _said(job: dict[str, object], fraction: float, **more: object) -> StepProgress:
    return StepProgress(job_id=str(job["id"]), step=Step.validate, fraction=fraction, token=1).model_copy(update=more)


async def test_progress_reaches_the_row_and_its_log(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    for _ in range(2):
        await (await workers.take()).finish()
    taken = await workers.take()
    await taken.start()
    before = await house.wait(anna, job["id"], lambda j: j["phase"] == "train" and j["queue_state"] == "active")

    await taken.progress(
        0.5, done=400, total=800, loss=0.5, losses={"mel": 0.4, "kl": 0.1}, eta_seconds=140.0, message="epoch 5"
    )
    after = await house.wait(anna, job["id"], lambda j: j["current_step"] == 400)

    assert after["total_steps"] == 800
    assert (after["current_loss"], after["eta_seconds"]) == (0.5, 140.0)
    assert after["losses"] == {"mel": 0.4, "kl": 0.1}
    assert after["progress"] == 25 + 65 / 2
    assert after["version"] > before["version"]
    logs = (await anna.get(f"/training/jobs/{job['id']}/logs")).json()["items"]
    assert [line["message"] for line in logs if line["kind"] == "message"] == ["epoch 5"]


async def test_the_newest_message_wins_and_nothing_runs_backwards(house: House, workers: Workers, bus: Bus) -> None:
    _, job = await _training(house, workers)
    writer = ProgressWriter(house.database, bus, timedelta(seconds=5), 3)

    results = [
        await writer.write(1000, _said(job, 0.8, done=80)),
        await writer.write(999, _said(job, 0.9, done=90)),
        await writer.write(1001, _said(job, 0.3, done=30)),
    ]

    async with house.database.read() as session:
        from services.gateway.jobs.tables import Job

        row = await session.get(Job, str(job["id"]))
    assert results == [True, False, True]
    assert row is not None
    assert row.progress == 1.6
    assert row.current_step == 30


async def test_words_of_another_step_an_older_owner_or_a_job_that_is_over_are_not_written(
    house: House, workers: Workers, bus: Bus
) -> None:
    _, job = await _training(house, workers)
    writer = ProgressWriter(house.database, bus, timedelta(seconds=5), 3)

    other_step = await writer.write(1000, _said(job, 0.5, step=Step.train))
    older_owner = await writer.write(1001, _said(job, 0.5, token=0))
    unknown = await writer.write(1002, _said(job, 0.5, job_id="job_nobody"))
    person = house.known(str(job["owner_id"]))
    await person.post(f"/training/jobs/{job['id']}/cancel")
    async with house.database.write() as session:
        from libs.common.events import StepCancelled
        from services.gateway.jobs import lifecycle

        await lifecycle.apply(session, StepCancelled(job_id=str(job["id"]), step=Step.validate, attempt=1, token=1))
    over = await writer.write(1003, _said(job, 0.5))

    assert (other_step, older_owner, unknown, over) == (False, False, False, False)


async def test_a_loss_that_is_no_number_is_not_written(house: House, workers: Workers, bus: Bus) -> None:
    _, job = await _training(house, workers)
    writer = ProgressWriter(house.database, bus, timedelta(seconds=5), 3)
    await writer.write(1000, _said(job, 0.1, loss=0.5))

    await writer.write(1001, _said(job, 0.2, loss=math.nan, losses={"mel": math.inf, "kl": 0.2}))

    person = house.known(str(job["owner_id"]))
    row = (await person.get(f"/training/jobs/{job['id']}")).json()
    assert row["current_loss"] == 0.5
    assert row["losses"] == {"kl": 0.2}


async def test_a_flood_of_progress_is_written_seldom(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    before = await house.wait_status(anna, job["id"], "running")

    began = time.monotonic()
    for number in range(200):
        await taken.progress(number / 200, done=number, total=200)
        await asyncio.sleep(0.005)
    after = await house.wait(anna, job["id"], lambda j: j["current_step"] == 199)

    # At most one write per 0.2 s, however long the 200 messages took: about a second.
    assert after["version"] - before["version"] <= (time.monotonic() - began) / 0.2 + 1


def test_the_shipped_times_are_those_of_the_architecture_page() -> None:
    shipped = GatewaySettings(service_token=TOKEN)

    assert shipped.progress_write == timedelta(seconds=5)
    assert shipped.heartbeat_comment == timedelta(seconds=15)
    assert shipped.outbox_claim < timedelta(seconds=120)
