"""The trainer killed, frozen, asked to go, cancelled and misled, each in the middle of a training."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import resource
import signal
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import psutil
import pytest

from libs.common.events import ManifestRef
from libs.common.jobs import Lane
from tests.integration.voice_services.parts import commit_prepared, prepared_tones, untrained_steps
from tests.integration.voice_services.platform import (
    LEASES_RUN_OUT,
    NOTHING_RUNS_OUT,
    Platform,
    Service,
    evaluate,
    family,
    index,
    publish,
    train,
    until_gone,
)
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def prepared(here: Platform) -> ManifestRef:
    return prepared_tones(here.paths)


def attempt(here: Platform, token: int, job: str = "job_1") -> Path:
    return here.paths.experiment("anna").step(job, "train").attempt(token)


def steps_of(folder: Path) -> list[int]:
    """The steps that a run's curve shows, in order."""
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line["step"] for line in lines if not {"validation", "damaged_checkpoints"} & line.keys()]


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob("checkpoint-????????"))


def newest_checkpoint(folder: Path) -> int:
    """The step of an attempt's newest checkpoint, 0 without one."""
    return max((int(path.name.split("-")[1]) for path in checkpoints(folder)), default=0)


def child_of(service: Service) -> psutil.Process:
    """The training process."""
    return next(p for p in family(service.pid) if "libs.voice.training_main" in p.cmdline())


def resumed_at(folder: Path) -> list[int]:
    said = [line.rsplit(" ", 1) for line in (folder / "train.log").read_text().splitlines()]
    return [int(step) for text, step in said if text.endswith("resumed from the checkpoint of step")]


def checksums(folders: Iterable[Path]) -> dict[str, str]:
    """Content of every file and target of every link below the folders."""
    found = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_symlink():
                found[str(path)] = str(path.readlink())
            elif path.is_file():
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def test_a_killed_trainer_leaves_no_training_and_another_goes_on(here: Platform, prepared: ManifestRef) -> None:
    first = await here.started("trainer", **LEASES_RUN_OUT)
    await here.bus.send_command(train("job_1", prepared, total_steps=40), Lane.normal)
    await until(lambda: len(checkpoints(attempt(here, 1))) >= 1)
    children = family(first.pid)

    first.kill()
    await until_gone(children)
    kept = newest_checkpoint(attempt(here, 1))
    here.start("trainer", **LEASES_RUN_OUT)
    event = await here.events.wait_for("trained", seconds=150)

    assert any("libs.voice.training_main" in p.cmdline() for p in children if p.is_running()) is False
    assert here.manifest(event).token == 2
    assert resumed_at(attempt(here, 2)) == [kept]
    assert steps_of(attempt(here, 2)) == list(range(1, 41))
    for name in ("metrics.jsonl", "tensorboard"):
        assert (here.paths.experiment("anna").folder / name).resolve() == attempt(here, 2) / name
    assert len(list((attempt(here, 2) / "tensorboard").iterdir())) == 2  # what each of the two processes wrote


async def test_sigterm_saves_the_training_and_hands_it_over(here: Platform, prepared: ManifestRef) -> None:
    both = [await here.started("trainer", **NOTHING_RUNS_OUT, CHECKPOINT_EVERY="600") for _ in range(2)]
    await here.bus.send_command(train("job_1", prepared, total_steps=80), Lane.normal)
    first = await here.owner_of("job_1", both)
    await until(lambda: len(steps_of(attempt(here, 1))) >= 5)

    first.signal(signal.SIGTERM)
    await here.events.wait_for("step_started", count=2)
    ended = await asyncio.to_thread(first.process.wait, PATIENCE)
    event = await here.events.wait_for("trained", seconds=150)

    assert ended in (0, -signal.SIGTERM)
    last = max(steps_of(attempt(here, 1)))
    assert resumed_at(attempt(here, 2)) == [last]
    assert steps_of(attempt(here, 2)) == list(range(1, 81))
    assert here.manifest(event).token == 2
    assert here.events.of("step_delayed") == []


async def test_a_trainer_that_slept_past_its_lease_changes_not_a_byte(here: Platform, prepared: ManifestRef) -> None:
    first = await here.started("trainer", **LEASES_RUN_OUT)
    await here.bus.send_command(train("job_1", prepared, total_steps=30), Lane.normal)
    await until(lambda: len(checkpoints(attempt(here, 1))) >= 1)
    trainee = child_of(first).pid
    sleepers = [psutil.Process(first.pid), *family(first.pid)]
    for process in sleepers:
        process.suspend()

    await here.started("trainer", **LEASES_RUN_OUT)
    event = await here.events.wait_for("trained", seconds=150)
    _, indexed, evaluated = untrained_steps(here.paths, "job_1")
    await here.send(publish("job_1", prepared, event.manifest, indexed, evaluated), "published", seconds=90)
    committed = [here.paths.in_data(name) for name in here.manifest(event).files]
    before = checksums([attempt(here, 2), here.paths.models_root])
    for process in reversed(sleepers):
        process.resume()
    await first.wait_for_words("worker.lease_lost")
    await until_gone([p for p in sleepers if p.pid == trainee])

    assert {str(path) for path in committed} <= before.keys()
    assert checksums([attempt(here, 2), here.paths.models_root]) == before
    assert here.manifest(event).token == 2
    assert len(here.events.of("trained")) == 1
    assert first.process.poll() is None


@pytest.mark.timeout(600)
async def test_a_worker_killed_six_times_on_one_job_completes_it(here: Platform, prepared: ManifestRef) -> None:
    async def has_told_of_progress() -> bool:
        """A worker that dies before that counts as one that its command has killed."""
        entry = await here.bus.bucket("leases").get("job_1.train")
        return entry is not None and bool(json.loads(entry.value)["mark"])

    await here.bus.send_command(train("job_1", prepared, total_steps=60), Lane.normal)
    newest = 0
    for token in range(1, 7):
        service = here.start("trainer", **LEASES_RUN_OUT, CHECKPOINT_EVERY="0.1")
        await until(lambda t=token, n=newest: newest_checkpoint(attempt(here, t)) > n)
        await until(has_told_of_progress)
        service.kill()
        await until_gone(family_by_folder(attempt(here, token)))
        newest = newest_checkpoint(attempt(here, token))

    here.start("trainer", **LEASES_RUN_OUT)
    event = await here.events.wait_for("trained", seconds=150)

    assert here.manifest(event).token == 7
    assert steps_of(attempt(here, 7)) == list(range(1, 61))
    assert here.events.of("step_failed") == here.events.of("step_delayed") == []


async def test_a_training_killed_for_want_of_memory_is_tried_again(here: Platform, prepared: ManifestRef) -> None:
    service = await here.started("trainer")
    await here.bus.send_command(train("job_1", prepared, total_steps=30), Lane.normal)
    await until(lambda: len(checkpoints(attempt(here, 1))) >= 1)

    child_of(service).kill()
    delayed = await here.events.wait_for("step_delayed")
    await here.events.wait_for("trained", seconds=150)

    assert delayed.problem["code"] == "training_crashed"
    assert "memory" in delayed.problem["detail"]
    assert delayed.failures == 1
    assert resumed_at(attempt(here, 2))[0] > 0
    assert steps_of(attempt(here, 2)) == list(range(1, 31))
    assert service.process.poll() is None


async def test_a_full_disk_delays_the_training_until_there_is_room(here: Platform, prepared: ManifestRef) -> None:
    service = await here.started("trainer", RETRY_DELAYS="5,5,5")
    psutil.Process(service.pid).rlimit(resource.RLIMIT_FSIZE, (60_000, -1))
    await here.bus.send_command(train("job_1", prepared, total_steps=10), Lane.normal)

    delayed = await here.events.wait_for("step_delayed", seconds=60)
    for process in [psutil.Process(service.pid), *family(service.pid)]:
        process.rlimit(resource.RLIMIT_FSIZE, (-1, -1))
    event = await here.events.wait_for("trained", seconds=150)

    assert delayed.problem["code"] == "storage_full"
    assert steps_of(attempt(here, event.token)) == list(range(1, 11))


async def test_a_cancelled_training_stops_at_once(here: Platform, prepared: ManifestRef) -> None:
    service = await here.started("trainer", CHECKPOINT_EVERY="600")
    await here.bus.send_command(train("job_1", prepared, total_steps=2000), Lane.normal)
    await until(lambda: len(steps_of(attempt(here, 1))) >= 3)
    child = child_of(service)

    await here.cancel("job_1")
    await here.events.wait_for("step_cancelled")
    await until_gone([child])

    assert checkpoints(attempt(here, 1))
    assert here.events.of("trained") == []


async def test_a_time_limit_keeps_the_state_for_another_try(here: Platform, prepared: ManifestRef) -> None:
    await here.started("trainer")

    # Six seconds: on a busy machine the first step comes late, and on a fast one 250 take longer.
    failed = await here.send(train("job_1", prepared, total_steps=250, max_training_seconds=6.0), "step_failed")
    done = steps_of(attempt(here, 1))
    here.events.seen.clear()
    await here.send(train("job_1", prepared, attempt=2, total_steps=250), "trained", seconds=250)

    assert failed.problem["code"] == "training_timeout"
    assert failed.problem["suggested_actions"]
    assert resumed_at(attempt(here, 2)) == [done[-1]]
    assert steps_of(attempt(here, 2)) == list(range(1, 251))


async def test_damaged_data_fails_the_job_with_its_reason(here: Platform) -> None:
    broken: dict[str, ManifestRef] = {}
    for name in ("not_a_number", "enormous", "missing", "empty", "short"):
        broken[name] = prepared_tones(here.paths, job=name, seconds=0.05 if name == "short" else 1.0)
    for name, value in {"not_a_number": np.nan, "enormous": 1e30}.items():
        for path in (attempt_of(here, name) / "3_feature768").iterdir():
            np.save(path, np.full_like(np.load(path), value))
    for path in (attempt_of(here, "missing") / "2a_f0").iterdir():
        path.unlink()
    (attempt_of(here, "empty") / "filelist.txt").write_text("")
    gone = ManifestRef(path="anna/.steps/gone/preprocess/manifest-1.json", sha256="0" * 64, token=1)
    references = {name: commit_prepared(here.paths, job=name) for name in broken} | {"gone": gone}
    here.start("trainer")

    codes = {}
    for name, reference in references.items():
        failed = await here.send(train(f"job_{name}", reference), "step_failed", seconds=60)
        codes[name] = failed.problem["code"]

    assert codes == {
        "not_a_number": "dataset_not_prepared",
        "enormous": "training_diverged",
        "missing": "dataset_not_prepared",
        "empty": "dataset_empty",
        "short": "dataset_too_short",
        "gone": "step_result_lost",
    }


async def test_a_prepared_file_that_changed_since_its_commit_fails_the_training_and_names_its_step(
    here: Platform, prepared: ManifestRef
) -> None:
    file = sorted((attempt_of(here, "prepared") / "2a_f0").iterdir())[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    here.start("trainer")

    failed = await here.send(train("job_1", prepared), "step_failed")

    assert failed.problem["code"] == "step_result_lost"
    assert failed.problem["step"] == "preprocess"
    assert failed.problem["files"] == [here.paths.relative(file)]
    assert "etry the job" in failed.problem["suggested_actions"][0]


def attempt_of(here: Platform, job: str) -> Path:
    return here.paths.experiment("anna").step(job, "preprocess").attempt(1)


async def test_a_damaged_checkpoint_costs_only_its_own_steps(here: Platform, prepared: ManifestRef) -> None:
    first = await here.started("trainer", **LEASES_RUN_OUT)
    await here.bus.send_command(train("job_1", prepared, total_steps=40), Lane.normal)
    await until(lambda: len(checkpoints(attempt(here, 1))) >= 2)
    first.kill()
    await until_gone(family_by_folder(attempt(here, 1)))
    *_, older, newest = checkpoints(attempt(here, 1))
    state = newest / "state.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])

    here.start("trainer", **LEASES_RUN_OUT)
    await here.events.wait_for("trained", seconds=150)

    assert resumed_at(attempt(here, 2)) == [int(older.name.split("-")[1])]
    assert steps_of(attempt(here, 2)) == list(range(1, 41))
    assert [path.name for path in (attempt(here, 2) / "checkpoints").glob("*.broken")] == [f"{newest.name}.broken"]


def family_by_folder(folder: Path) -> list[psutil.Process]:
    """Training processes that work in this folder, whoever their parent is."""
    return [p for p in psutil.process_iter(["cmdline"]) if any(str(folder) in part for part in p.info["cmdline"] or ())]


async def test_two_trainers_share_the_jobs(here: Platform, prepared: ManifestRef) -> None:
    for _ in range(2):
        await here.started("trainer", TRAINING_CONCURRENCY=1)

    for job in ("job_1", "job_2"):
        await here.bus.send_command(train(job, prepared, total_steps=10), Lane.normal)
    await here.events.wait_for("trained", count=2, seconds=150)

    started = here.events.of("step_started")
    assert {event.job_id for event in started} == {"job_1", "job_2"}
    assert len({event.worker for event in started}) == 2
    weights = [
        [e.sha256 for f, e in here.manifest(event).files.items() if f.endswith("voice.pth")]
        for event in here.events.of("trained")
    ]
    assert weights[0] == weights[1]  # the same data, options and seed


# -- steps that hang ---------------------------------------------------------------------------------------------------


async def freeze_children(service: Service, frozen: list[psutil.Process], at_most: int = 1000) -> None:
    """Stops the processes that a service starts for heavy work, as soon as they are there: they hang for good."""
    while True:
        for process in family(service.pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process not in frozen and len(frozen) < at_most and "spawn_main" in " ".join(process.cmdline()):
                    process.suspend()
                    frozen.append(process)
        await asyncio.sleep(0.01)


async def test_a_step_whose_process_hangs_is_ended_and_tried_again_and_then_fails(
    here: Platform, prepared: ManifestRef
) -> None:
    service = await here.started("trainer", STEP_TIMEOUT_INDEX="3")
    frozen: list[psutil.Process] = []
    freezing = asyncio.create_task(freeze_children(service, frozen))

    failed = await here.send(index("job_1", prepared), "step_failed", seconds=120)
    freezing.cancel()
    await until_gone(frozen)

    assert len(here.events.of("step_delayed")) == 3
    assert len(frozen) == 4
    assert failed.problem["code"] == "step_timed_out"
    assert failed.problem["setting"] == "STEP_TIMEOUT_INDEX"
    assert failed.problem["suggested_actions"]
    assert "within 3 s" in failed.problem["detail"]


async def test_a_step_whose_process_hangs_once_is_done_at_the_second_try(here: Platform, prepared: ManifestRef) -> None:
    # The limit is what the test takes, about a minute: an evaluation on a busy machine has to be done well within.
    service = await here.started("trainer", STEP_TIMEOUT_EVALUATE="50")
    frozen: list[psutil.Process] = []
    freezing = asyncio.create_task(freeze_children(service, frozen, at_most=1))
    trained, indexed, _ = untrained_steps(here.paths, "job_1")

    event = await here.send(evaluate("job_1", prepared, trained, indexed), "evaluated", seconds=200)
    freezing.cancel()

    # One try was frozen; on a very busy machine another may not be done in time.
    delays = [delayed.problem["code"] for delayed in here.events.of("step_delayed")]
    tokens = [started.token for started in here.events.of("step_started")]
    assert delays == ["step_timed_out"] * (len(tokens) - 1) != []
    assert tokens == list(range(tokens[0], event.token + 1))
    assert not frozen[0].is_running()
