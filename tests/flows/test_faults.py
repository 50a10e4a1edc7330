"""Each part is killed in the middle of its work, and the job completes all the same."""

from __future__ import annotations

import itertools
import json
import signal
import time
from pathlib import Path

import pytest

from libs.client.models import Job
from tests.flows.conftest import Platform
from tests.waiting import PATIENCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

numbers = itertools.count()


def start(platform: Platform, recordings: list[Path], *, steps: int = 150) -> Job:
    """A training job on a fresh dataset that takes some ten seconds."""
    dataset = platform.client.ensure_dataset(f"fault-{next(numbers)}")
    platform.client.upload(recordings, dataset.id)
    return platform.client.add_training_job(dataset.id, preset="rvc-tiny", total_steps=steps)


def steps_logged(platform: Platform, job: Job) -> list[int]:
    """The training steps in the run's curve, in order."""
    curve = platform.stack.root / "data" / str(job.dataset) / "metrics.jsonl"
    lines = [json.loads(line) for line in curve.read_text().splitlines()]
    return [line["step"] for line in lines if not {"validation", "damaged_checkpoints"} & line.keys()]


def runs_of(platform: Platform, job: Job) -> list[Path]:
    """The folders of the job's training runs, one for each trainer that had it."""
    steps = platform.stack.root / "data" / str(job.dataset) / ".steps" / job.id
    return sorted((steps / "train").glob(".attempt-*"))


def assert_nothing_is_half_written(platform: Platform, job: Job) -> None:
    """Every file that a manifest names is there with its checksum, and no draft lies under a final name."""
    card = json.loads((platform.stack.root / "models" / str(job.voice) / "voice.json").read_text())
    assert card["version"] == job.id
    answer = platform.api("GET", f"/models/{job.voice}")
    assert answer.status_code == 200


def test_a_killed_trainer_is_resumed_from_its_checkpoint(platform: Platform, recordings: list[Path]) -> None:
    job = start(platform, recordings)
    platform.in_phase(job.id, "train", after_step=30)
    wait_until(lambda: any(list(run.glob("checkpoints/checkpoint-????????")) for run in runs_of(platform, job)))

    platform.stack.kill("trainer")
    wait_until(lambda: not [pid for pid in platform.stack.leftovers() if _is_training(pid)])
    platform.stack.restart("trainer")

    over = platform.finished(job.id)
    assert over.status == "completed", over.error
    assert over.attempt == 1, "a killed worker costs no attempt"
    assert steps_logged(platform, over) == list(range(1, 151)), "each step stands once in the curve"
    runs = runs_of(platform, job)
    assert len(runs) == 2
    assert "resumed from the checkpoint" in (runs[-1] / "train.log").read_text()
    assert_nothing_is_half_written(platform, over)


def _is_training(pid: int) -> bool:
    try:
        return b"training_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_a_killed_preprocessor_is_taken_over(platform: Platform, recordings: list[Path]) -> None:
    job = start(platform, recordings, steps=10)
    platform.in_phase(job.id, "preprocess")

    platform.stack.kill("preprocessor")
    platform.stack.restart("preprocessor")

    over = platform.finished(job.id)
    assert over.status == "completed", over.error
    assert_nothing_is_half_written(platform, over)


def test_a_killed_gateway_loses_no_job_and_no_event(platform: Platform, recordings: list[Path]) -> None:
    job = start(platform, recordings)
    platform.in_phase(job.id, "train", after_step=10)

    platform.stack.kill("gateway")
    time.sleep(1.0)
    platform.stack.restart("gateway")

    events = list(platform.client.follow(job))
    over = platform.finished(job.id)
    ids = [event.id for event in events if event.id is not None]
    assert over.status == "completed", over.error
    assert ids == sorted(set(ids))
    assert events[-1].data["state"] == "completed"


def test_a_killed_broker_costs_no_job_and_no_event_of_a_feed(platform: Platform, recordings: list[Path]) -> None:
    job = start(platform, recordings)
    states: list[str] = []
    ids: list[int] = []
    has_restarted = False
    for event in platform.client.follow(job):
        if event.id is not None:
            ids.append(event.id)
        if event.kind == "state":
            states.append(f"{event.data['state']}/{event.data.get('phase')}/{event.data.get('queue_state')}")
        if not has_restarted and event.kind == "progress" and event.data.get("step") == "train":
            platform.stack.kill("nats")
            time.sleep(1.0)
            platform.stack.restart("nats")
            has_restarted = True

    over = platform.finished(job.id)
    assert has_restarted
    assert over.status == "completed", over.error
    assert ids == sorted(set(ids)), "an event came twice or out of order"
    assert states[-1].startswith("completed")
    assert len(states) == len(set(states)), states
    assert steps_logged(platform, over) == list(range(1, 151))


def test_jobs_submitted_while_the_broker_is_away_run_when_it_is_back(
    platform: Platform, recordings: list[Path]
) -> None:
    platform.stack.kill("nats")

    jobs = [start(platform, recordings, steps=5) for _ in range(2)]
    time.sleep(9.0)  # three minutes, twenty times shorter
    assert {platform.job(job.id).status for job in jobs} == {"queued"}
    platform.stack.restart("nats")

    assert [platform.finished(job.id).status for job in jobs] == ["completed", "completed"]


def test_a_terminated_trainer_saves_its_work_and_goes(platform: Platform, recordings: list[Path]) -> None:
    second = platform.stack.add("trainer")
    job = start(platform, recordings)
    platform.in_phase(job.id, "train", after_step=30)
    owner = platform.wait_until(lambda: _trainer_of(platform, job, ("trainer", second)), say="the job's trainer")

    status = platform.stack.terminate(owner, seconds=PATIENCE)

    over = platform.finished(job.id)
    if owner == "trainer":
        platform.stack.restart("trainer")
        platform.stack.terminate(second)
    assert status in (0, -signal.SIGTERM), "it ended by itself, and not because it was killed"
    assert over.status == "completed", over.error
    assert over.attempt == 1
    assert len(runs_of(platform, job)) == 2
    assert steps_logged(platform, over) == list(range(1, 151))


def _trainer_of(platform: Platform, job: Job, names: tuple[str, ...]) -> str | None:
    """That one of the trainers which has the job in its hand, as it announces."""
    workers = platform.api("GET", "/system/services").json()["workers"]
    at_work = [worker["worker"] for worker in workers if job.id in worker["jobs"]]
    return next((name for name in names for who in at_work if who.endswith(f"-{platform.stack.pid(name)}")), None)


def test_a_cancelled_job_stops_and_can_be_taken_up_again(platform: Platform, recordings: list[Path]) -> None:
    job = start(platform, recordings)
    platform.in_phase(job.id, "train", after_step=10)

    platform.client.cancel(job)
    cancelled = platform.finished(job.id)
    again = platform.client.retry(cancelled)
    over = platform.finished(again.id)

    assert cancelled.status == "cancelled"
    assert over.status == "completed", over.error
    assert over.attempt == 2
    assert steps_logged(platform, over) == list(range(1, 151))


def test_a_queued_job_is_cancelled_at_once_and_never_runs(platform: Platform, recordings: list[Path]) -> None:
    platform.stack.kill("ingest")
    try:
        dataset = platform.client.ensure_dataset("fault-0")
        job = platform.client.add_training_job(dataset.id, preset="rvc-tiny", total_steps=5)
        cancelled = platform.client.cancel(job)
    finally:
        platform.stack.restart("ingest")
    time.sleep(2.0)

    assert cancelled.status == "cancelled"
    assert platform.job(job.id).status == "cancelled"
    logs = [line.message for line in platform.client.logs(job)]
    assert not [line for line in logs if "started" in line]
