"""Is a job whose finished steps lost their results taken up again, and nothing done twice that is still there?"""

from __future__ import annotations

from pathlib import Path

from libs.common.errors import StepResultLost
from libs.common.events import EvaluateVoice, TrainVoice
from libs.common.jobs import Step
from libs.common.paths import Paths
from tests.integration.gateway_jobs.conftest import House, Person
from tests.integration.gateway_jobs.scripted_workers import Taken, Workers

BEFORE = {Step.validate, Step.preprocess, Step.train, Step.index}


async def _until(house: House, workers: Workers, owner: Person, step: Step) -> tuple[str, Taken, dict[Step, Path]]:
    """A job at `step`, which somebody works on; and a file of each step before."""
    job = await house.train(owner, await house.dataset(owner))
    paths, files = Paths(house.settings), {}
    while (taken := await workers.take()).command.step is not step:
        command = taken.command
        file = paths.experiment(command.experiment).step(command.job_id, command.step).attempt(1) / "result"
        file.parent.mkdir(parents=True)
        file.write_bytes(b"what the step made")
        files[command.step] = file
        await taken.start()
        await taken.finish([file])
    await taken.start()
    return job["id"], taken, files


async def _retried(house: House, workers: Workers, owner: Person, job_id: str) -> list[Step]:
    """The steps that a retry takes until the job is completed."""
    answer = await owner.post(f"/training/jobs/{job_id}/retry")
    assert answer.status_code == 202, answer.text
    steps = []
    while True:
        taken = await workers.take()
        assert taken.command.attempt == 2
        steps.append(taken.command.step)
        taken.token = 2
        await taken.start()
        await taken.finish()
        if taken.command.step is Step.publish:
            break
    await house.wait_status(owner, job_id, "completed")
    return steps


async def test_a_retry_goes_back_to_a_step_whose_files_are_gone(house: House, workers: Workers) -> None:
    anna = await house.person()
    job_id, training, files = await _until(house, workers, anna, Step.train)
    files[Step.preprocess].unlink()
    await training.fail(StepResultLost("2a_f0/1.npy is gone", step="preprocess"))
    failed = await house.wait_status(anna, job_id, "failed")

    steps = await _retried(house, workers, anna, job_id)

    assert failed["error"]["code"] == "step_result_lost"
    assert failed["error"]["step"] == "preprocess"
    assert failed["recovery"]["suggested_actions"]
    assert steps == [Step.preprocess, Step.train, Step.index, Step.evaluate, Step.publish]
    prepared = [command.prepared for command in workers.seen if isinstance(command, TrainVoice)]
    assert prepared[0] != prepared[1]


async def test_what_is_still_there_is_not_done_again(house: House, workers: Workers) -> None:
    anna = await house.person()
    job_id, evaluating, files = await _until(house, workers, anna, Step.evaluate)
    files[Step.preprocess].unlink()
    await evaluating.fail()
    await house.wait_status(anna, job_id, "failed")

    steps = await _retried(house, workers, anna, job_id)

    assert set(files) == BEFORE
    assert steps == [Step.preprocess, Step.evaluate, Step.publish]
    first, second = (command for command in workers.seen if isinstance(command, EvaluateVoice))
    assert first.trained == second.trained
    assert first.prepared != second.prepared


async def test_a_step_that_a_worker_found_damaged_is_done_again_though_its_files_have_their_sizes(
    house: House, workers: Workers
) -> None:
    anna = await house.person()
    job_id, training, _ = await _until(house, workers, anna, Step.train)
    await training.fail(StepResultLost("a checksum is wrong", step="preprocess"))
    await house.wait_status(anna, job_id, "failed")

    steps = await _retried(house, workers, anna, job_id)

    assert steps[:2] == [Step.preprocess, Step.train]
    lines = (await anna.get(f"/training/jobs/{job_id}/logs")).json()["items"]
    assert any("preprocess step made is gone" in line["message"] for line in lines)
