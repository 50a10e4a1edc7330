"""Does a cancel reach everybody, whatever is running or away?"""

from __future__ import annotations

from sqlalchemy import select

from libs.common.bus import Bus
from libs.common.jobs import Step
from services.gateway.jobs.tables import Outgoing
from services.gateway.voices.tables import Voice
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, House
from tests.integration.gateway_jobs.scripted_workers import Workers

pytestmark = BOTH_DATABASES


async def test_a_queued_job_ends_at_once_and_its_message_is_deleted(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await house.until_all_is_sent()

    answer = await anna.post(f"/training/jobs/{job['id']}/cancel")
    await house.until_all_is_sent()

    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["status"] == "cancelled"
    assert answer.json()["finished_at"]
    assert await workers.is_idle()
    assert await bus.bucket("control").get(f"cancel.{job['id']}") is not None


async def test_a_running_job_shows_the_wish_until_its_worker_confirms(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    await house.wait_status(anna, job["id"], "running")

    asked = (await anna.post(f"/training/jobs/{job['id']}/cancel")).json()
    again = (await anna.post(f"/training/jobs/{job['id']}/cancel")).json()
    await house.until_all_is_sent()
    is_asked = await bus.bucket("control").get(f"cancel.{job['id']}")
    await taken.cancelled()
    ended = await house.wait_status(anna, job["id"], "cancelled")

    assert asked["status"] == "running"
    assert asked["cancel_requested_at"]
    assert again["status"] == "running"
    assert again["cancel_requested_at"] == asked["cancel_requested_at"]
    assert again["version"] == asked["version"]
    assert is_asked is not None
    assert ended["error"] is None
    assert ended["recovery"]["can_retry"]
    assert (await anna.post(f"/training/jobs/{job['id']}/cancel")).status_code == 200


async def test_a_job_between_two_steps_ends_at_once(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await (await workers.take()).finish()
    await house.wait(anna, job["id"], lambda j: j["phase"] == "preprocess")
    await house.until_all_is_sent()

    answer = await anna.post(f"/training/jobs/{job['id']}/cancel")
    await house.until_all_is_sent()

    assert answer.json()["status"] == "cancelled"
    assert await workers.is_idle()


async def test_a_step_that_finishes_after_the_wish_is_the_last_one(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    await house.wait_status(anna, job["id"], "running")
    await anna.post(f"/training/jobs/{job['id']}/cancel")

    await taken.finish()

    await house.wait_status(anna, job["id"], "cancelled")
    assert await workers.is_idle()


async def test_a_delayed_job_ends_at_once_and_a_late_start_changes_nothing(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    await taken.start()
    await taken.delay(1)
    await house.wait(anna, job["id"], lambda j: j["queue_state"] == "delayed")

    answer = await anna.post(f"/training/jobs/{job['id']}/cancel")
    taken.token = 2
    await taken.start()
    await taken.cancelled()

    assert answer.json()["status"] == "cancelled"
    following = await house.train(anna, answer.json()["dataset_id"])
    assert (await workers.take()).command.job_id == following["id"]
    assert (await anna.get(f"/training/jobs/{job['id']}")).json()["version"] == answer.json()["version"]


async def test_completed_and_failed_jobs_cannot_be_cancelled(house: House, workers: Workers) -> None:
    anna = await house.person()
    failing = await house.train(anna, await house.dataset(anna, "one"))
    await (await workers.take()).fail()
    await house.wait_status(anna, failing["id"], "failed")
    workers.work()
    completing = await house.train(anna, await house.dataset(anna, "two"))
    await house.wait_status(anna, completing["id"], "completed")

    for job in (failing, completing):
        answer = await anna.post(f"/training/jobs/{job['id']}/cancel")

        assert answer.status_code == 409
        assert answer.json()["code"] == "illegal_transition"


async def test_a_cancelled_job_is_taken_up_again_without_the_old_wish(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await (await workers.take()).finish()
    taken = await workers.take()
    await taken.start()
    await house.wait(anna, job["id"], lambda j: j["phase"] == "preprocess" and j["queue_state"] == "active")
    await anna.post(f"/training/jobs/{job['id']}/cancel")
    await taken.cancelled()
    await house.wait_status(anna, job["id"], "cancelled")

    answer = await anna.post(f"/training/jobs/{job['id']}/retry")
    again = await workers.take()

    assert answer.json()["cancel_requested_at"] is None
    assert (again.command.step, again.command.attempt) == (Step.preprocess, 2)
    assert await bus.bucket("control").get(f"cancel.{job['id']}") is None
    workers.work()
    await again.finish()
    done = await house.wait_status(anna, job["id"], "completed")
    async with house.database.read() as session:
        voice = await session.get(Voice, done["model_id"])
    assert voice is not None
    assert voice.status == "ready"


async def test_a_command_that_was_never_sent_is_dropped(
    house: House, workers: Workers, nats_server: NatsServer
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    nats_server.kill()
    job = await house.train(anna, dataset)

    answer = await anna.post(f"/training/jobs/{job['id']}/cancel")

    assert answer.json()["status"] == "cancelled"
    async with house.database.read() as session:
        kinds = list(await session.scalars(select(Outgoing.kind).where(Outgoing.job_id == job["id"])))
    assert "command" not in kinds
    assert "control" in kinds
    nats_server.start()
    await house.until_all_is_sent()
    assert await workers.is_idle(1.0)
