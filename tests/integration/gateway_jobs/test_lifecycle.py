"""Does a job go the whole way, and only the ways that there are?"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from libs.common.bus import Bus
from libs.common.errors import TrainingCrashed
from libs.common.events import BuildIndex, EvaluateVoice, PublishVoice, TrainVoice
from libs.common.jobs import STEPS, JobKind, Step
from services.gateway.accounts.current import Caller
from services.gateway.accounts.tables import Role
from services.gateway.audit.tables import AuditEntry
from services.gateway.database import new_id
from services.gateway.jobs import starting
from services.gateway.jobs.inbox import Inbox
from services.gateway.jobs.schemas import TrainingRequest
from services.gateway.voices.tables import Voice, VoiceStatus
from tests.integration.gateway_jobs.conftest import BOTH_DATABASES, House
from tests.integration.gateway_jobs.scripted_workers import Workers, finished

pytestmark = BOTH_DATABASES


async def test_a_training_job_goes_through_all_six_steps_and_leaves_a_voice(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    workers.work()

    job = await house.train(anna, dataset, name="Anna, warm")

    done = await house.wait_status(anna, job["id"], "completed")
    assert [command.step for command in workers.seen] == list(STEPS[JobKind.training])
    assert done["progress"] == 100
    assert (done["current_step"], done["total_steps"], done["losses"]) == (800, 800, {"mel": 0.4})
    assert done["queue_state"] is None
    assert done["error"] is None
    assert done["started_at"]
    assert done["finished_at"]
    async with house.database.read() as session:
        voice = (await session.scalars(select(Voice))).one()
    assert (voice.id, voice.slug, voice.status) == (done["model_id"], "anna-warm", VoiceStatus.ready.value)
    assert voice.path == f"anna-warm/versions/{job['id']}"


async def test_each_command_names_what_the_earlier_steps_made(house: House, workers: Workers) -> None:
    anna = await house.person()
    workers.work()

    job = await house.train(anna, await house.dataset(anna))
    await house.wait_status(anna, job["id"], "completed")

    by_step = {command.step: command for command in workers.seen}
    train, index = by_step[Step.train], by_step[Step.index]
    evaluate, publish = by_step[Step.evaluate], by_step[Step.publish]
    assert isinstance(train, TrainVoice)
    assert isinstance(index, BuildIndex)
    assert isinstance(evaluate, EvaluateVoice)
    assert isinstance(publish, PublishVoice)
    assert "/preprocess/" in train.prepared.path
    assert train.prepared == index.prepared == publish.prepared
    assert "/train/" in evaluate.trained.path
    assert evaluate.trained == publish.trained
    assert "/index/" in evaluate.indexed.path
    assert evaluate.indexed == publish.indexed
    assert "/evaluate/" in publish.evaluated.path
    assert len(publish.inputs) == 2
    assert train.options.preset == "lite"


async def test_every_transition_is_an_audit_row_and_a_line_of_the_log(house: House, workers: Workers) -> None:
    anna = await house.person()
    workers.work()

    job = await house.train(anna, await house.dataset(anna))
    await house.wait_status(anna, job["id"], "completed")

    async with house.database.read() as session:
        rows = await session.scalars(
            select(AuditEntry).where(AuditEntry.object_id == job["id"]).order_by(AuditEntry.id)
        )
        actions = [row.action for row in rows]
    assert actions == ["job.opened", "job.queued", "job.running", "job.completed"]
    lines = (await anna.get(f"/training/jobs/{job['id']}/logs", params={"limit": 200})).json()["items"]
    moves = [line["metadata"]["to"] for line in lines if line["kind"] == "transition"]
    assert moves == ["pending", "queued", "running", "completed"]
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)


async def test_a_delayed_step_shows_its_failures_and_goes_on(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()

    await taken.start()
    await taken.delay(1)
    delayed = await house.wait(anna, job["id"], lambda j: j["queue_state"] == "delayed")
    taken.token = 2
    await taken.start()
    active = await house.wait(anna, job["id"], lambda j: j["queue_state"] == "active")
    await taken.finish()

    assert delayed["status"] == "running"
    assert delayed["recovery"]["retry_count"] == 1
    assert delayed["recovery"]["max_retries"] == 3
    assert delayed["recovery"]["last_error"]["code"] == "unavailable"
    assert delayed["recovery"]["suggested_actions"]
    assert not delayed["recovery"]["can_retry"]
    assert active["version"] > delayed["version"]
    assert (await workers.take()).command.step is Step.preprocess


async def test_a_failed_job_tells_why_and_a_retry_goes_on_at_that_step(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    for _ in range(2):
        await (await workers.take()).finish()
    training = await workers.take()
    await training.start()

    await training.fail(TrainingCrashed("the process was killed by signal 9"), failures=3)
    failed = await house.wait_status(anna, job["id"], "failed")
    answer = await anna.post(f"/training/jobs/{job['id']}/retry")
    again = await workers.take()

    assert failed["error"]["code"] == "training_crashed"
    assert failed["recovery"]["can_retry"]
    assert failed["progress"] < 100
    assert failed["finished_at"]
    assert answer.status_code == 202
    assert answer.json()["attempt"] == 2
    assert answer.json()["error"] is None
    assert (again.command.step, again.command.attempt) == (Step.train, 2)
    assert isinstance(again.command, TrainVoice)
    assert isinstance(training.command, TrainVoice)
    assert again.command.prepared == training.command.prepared
    workers.work()
    await again.finish()
    await house.wait_status(anna, job["id"], "completed")


async def test_only_failed_and_cancelled_jobs_can_be_retried(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))

    answer = await anna.post(f"/training/jobs/{job['id']}/retry")

    assert answer.status_code == 409
    assert answer.json()["code"] == "illegal_transition"
    assert answer.json()["state"] == "queued"


@pytest.mark.parametrize("what", ["voice", "dataset"])
async def test_a_job_whose_voice_or_dataset_was_deleted_is_not_retried(
    house: House, workers: Workers, what: str
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await (await workers.take()).fail()
    await house.wait_status(anna, job["id"], "failed")
    await anna.http.delete(f"/api/v1/{'models' if what == 'voice' else 'datasets'}/{job[what]}")

    answer = await anna.post(f"/training/jobs/{job['id']}/retry")

    assert answer.status_code == 409, answer.text
    assert what in answer.json()["detail"]
    assert (await anna.get(f"/training/jobs/{job['id']}")).json()["status"] == "failed"


async def test_a_voice_that_failed_is_processing_again_while_its_job_is_retried(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    await (await workers.take()).fail()
    await house.wait_status(anna, job["id"], "failed")
    before = (await anna.get(f"/models/{job['model_id']}")).json()["status"]

    await anna.post(f"/training/jobs/{job['id']}/retry")

    assert before == "failed"
    assert (await anna.get(f"/models/{job['model_id']}")).json()["status"] == "processing"


@pytest.mark.parametrize("what", ["voice", "dataset"])
async def test_what_a_job_begins_with_is_not_deleted_at_the_same_moment(
    house: House, workers: Workers, what: str
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    first = await house.train(anna, dataset)
    await anna.post(f"/training/jobs/{first['id']}/cancel")
    caller = Caller(id=anna.id, email="anna@example.org", name="", role=Role.creator)
    request = TrainingRequest(dataset_id=dataset)

    async with house.database.write() as session:
        await starting.start_training(session, caller, request, job_id=new_id("job"), alive=[], price=1.0)
        key = first["model_id"] if what == "voice" else dataset
        deleting = asyncio.create_task(anna.http.delete(f"/api/v1/{'models' if what == 'voice' else 'datasets'}/{key}"))
        await asyncio.sleep(0.4)
    answer = await deleting

    assert answer.status_code == 409, answer.text


async def test_words_about_an_older_attempt_or_another_step_change_nothing(
    house: House, workers: Workers, bus: Bus
) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    first = await workers.take()
    await first.start()
    await first.fail()
    await house.wait_status(anna, job["id"], "failed")
    await anna.post(f"/training/jobs/{job['id']}/retry")
    second = await workers.take()
    await second.start()
    running = await house.wait_status(anna, job["id"], "running")
    inbox = Inbox(house.database, bus)

    late = await inbox.receive("late.1", finished(first.command, first.paths, 1, []))
    ahead = await inbox.receive(
        "ahead.1", finished(second.command.model_copy(update={"step": Step.train}), first.paths, 1, [])
    )
    unknown = await inbox.receive(
        "unknown.1", finished(second.command.model_copy(update={"job_id": "job_nobody"}), first.paths, 1, [])
    )

    assert (late, ahead, unknown) == (False, False, False)
    assert (await house.wait_status(anna, job["id"], "running"))["phase"] == "validate"
    assert running["attempt"] == 2


async def test_a_finish_that_overtakes_its_start_counts(house: House, workers: Workers) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    taken = await workers.take()

    await taken.finish()
    await taken.start()
    following = await workers.take()

    assert following.command.step is Step.preprocess
    now = (await anna.get(f"/training/jobs/{job['id']}")).json()
    assert now["status"] == "running"
    assert now["started_at"]


async def test_an_event_that_comes_twice_is_applied_once(house: House, workers: Workers, bus: Bus) -> None:
    anna = await house.person()
    await house.train(anna, await house.dataset(anna))
    taken = await workers.take()
    event = finished(taken.command, taken.paths, 1, [])
    inbox = Inbox(house.database, bus)

    results = await asyncio.gather(*(inbox.receive("the-same-id", event) for _ in range(5)))
    await taken.finish()

    assert sorted(results) == [False, False, False, False, True]
    assert (await workers.take()).command.step is Step.preprocess
    assert await workers.is_idle()


async def test_a_preprocess_job_ends_after_its_two_steps(house: House, workers: Workers) -> None:
    anna = await house.person()
    await house.dataset(anna, "test_model")
    workers.work()

    answer = await anna.post("/preprocess/jobs", json={"exp_name": "test_model"})

    job: dict[str, Any] = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"].endswith(job["id"])
    job = await house.wait_prepared(anna, job["id"])
    assert job["status"] == "completed"
    assert job["progress"] == 100
    assert job["model_id"] is None
    assert [command.step for command in workers.seen] == [Step.validate, Step.preprocess]


async def test_training_again_under_a_voices_name_makes_a_new_version_of_it(house: House, workers: Workers) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    workers.work()
    first = await house.train(anna, await house.dataset(anna, "one"), name="Our voice")
    await house.wait_status(anna, first["id"], "completed")

    second = await house.train(anna, await house.dataset(anna, "two"), name="Our voice")
    other = await house.train(ben, await house.dataset(ben, "three"), name="Our voice")
    await house.wait_status(anna, second["id"], "completed")
    await house.wait_status(ben, other["id"], "completed")

    assert second["voice"] == first["voice"] == "our-voice"
    assert other["voice"].startswith("our-voice-")
    async with house.database.read() as session:
        voice = (await session.scalars(select(Voice).where(Voice.slug == "our-voice"))).one()
    assert voice.job_id == second["id"]
    assert voice.owner_id == anna.id


async def test_a_dataset_says_what_its_jobs_do_with_it(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)

    async def status() -> str:
        one = (await anna.get(f"/datasets/{dataset}")).json()["status"]
        (listed,) = (await anna.get("/datasets")).json()["items"]
        assert listed["status"] == one
        return str(one)

    said = [await status()]
    job = await house.train(anna, dataset)
    said.append(await status())
    await (await workers.take()).fail()
    await house.wait_status(anna, job["id"], "failed")
    said.append(await status())
    workers.work()
    await anna.post(f"/training/jobs/{job['id']}/retry")
    await house.wait_status(anna, job["id"], "completed")
    said.append(await status())

    assert said == ["active", "processing", "failed", "active"]
