"""A run can be stopped, killed, resumed, starved and misled, and it ends with the same weights or the right error."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from libs.common.errors import (
    Cancelled,
    Conflict,
    Preempted,
    StorageFull,
    TrainingDiverged,
    TrainingTimeout,
    WorkFailed,
)
from libs.voice.artefact import load_synthesizer
from libs.voice.batch import Batch
from libs.voice.child import Outcome, TrainingChild
from libs.voice.device import usable_cores
from libs.voice.learning import Learner
from libs.voice.progress import REPEAT_SECONDS, Progress
from libs.voice.training import StopReason, TrainingInputs, TrainingResult, train
from libs.voice.training_config import TrainingConfig
from libs.voice.training_plan import FEWEST_STEPS
from tests.unit.voice import runs
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import StepClock, final_state, ignore, in_a_child, steps_of

CONFIG = TrainingConfig(
    preset="rvc-tiny", total_steps=12, threads=1, checkpoint_every_steps=3, early_stopping_patience=0
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("experiment"), sources=4, pieces=2, seconds=0.6)


@pytest.fixture(autouse=True)
def as_it_was() -> Any:
    yield
    torch.use_deterministic_algorithms(False)


def run(experiment: Path, folder: Path, config: TrainingConfig = CONFIG, **stop: Any) -> TrainingResult:
    return runs.run(experiment, folder, config, **stop)


def stop_at(step: int, reason: StopReason) -> tuple[Callable[[Progress], None], Callable[[], StopReason | None]]:
    """A `should_stop` that speaks up at the `step`-th time it is asked after training began."""
    asked = [0]

    def should_stop() -> StopReason | None:
        asked[0] += 1
        return reason if asked[0] > step + 1 else None

    return ignore, should_stop


def assert_same_weights(one: Path, other: Path) -> None:
    assert runs.different(one, other) == []


@pytest.fixture(scope="module")
def unbroken(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    folder = tmp_path_factory.mktemp("unbroken")
    return folder, run(experiment, folder)


def test_a_run_ends_with_a_voice_that_loads_and_sounds(unbroken: tuple[Path, TrainingResult]) -> None:
    folder, result = unbroken

    voice = load_synthesizer(result.voice)
    generator = torch.Generator().manual_seed(0)
    wave = voice.render(
        torch.randn(50, 768, generator=generator), torch.full((50,), 150.0), torch.full((50,), 40), 0, generator
    )

    assert result.ended == "complete"
    assert result.steps == 12
    assert result.skipped_steps == 0
    assert wave.shape == (8000,)
    assert float(wave.abs().max()) > 1e-3
    assert steps_of(folder) == list(range(1, 13))
    assert result.best_loss is not None
    assert result.split["by"] == "source"
    assert json.loads((folder / "run.json").read_text())["split"] == result.split


def test_training_makes_the_losses_smaller(experiment: Path, tmp_path: Path) -> None:
    result = run(experiment, tmp_path, dataclasses.replace(CONFIG, total_steps=40))

    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    mels = [line["mel"] for line in lines if "mel" in line]
    held_out = [line["validation"]["loss"] for line in lines if "validation" in line]
    assert np.mean(mels[-5:]) < 0.6 * np.mean(mels[:3])
    assert result.best_loss is not None
    assert result.best_loss < 0.8 * held_out[0]


def test_a_run_repeats_bit_by_bit(experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]) -> None:
    result = run(experiment, tmp_path)

    assert_same_weights(tmp_path, unbroken[0])
    assert result.sha256 == unbroken[1].sha256


@pytest.mark.parametrize("trial", range(2))
def test_a_run_killed_at_random_steps_ends_with_the_weights_of_an_unbroken_one(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult], trial: int
) -> None:
    chance = random.Random()
    kills = sorted(chance.sample(range(1, 11), 2))
    delays = [chance.uniform(0, 0.15) for _ in kills]

    endings = [
        asyncio.run(in_a_child(experiment, tmp_path, CONFIG, kill_at=step, delay=delay)).ending
        for step, delay in zip(kills, delays, strict=True)
    ]
    last = asyncio.run(in_a_child(experiment, tmp_path, CONFIG))

    assert "crashed" in endings, (kills, delays)
    assert last.ending == "completed", last
    assert last.result is not None
    assert_same_weights(tmp_path, unbroken[0])
    assert last.result["sha256"] == unbroken[1].sha256
    assert steps_of(tmp_path) == list(range(1, 13))


@pytest.mark.parametrize(("reason", "error"), [(StopReason.CANCEL, Cancelled), (StopReason.PREEMPT, Preempted)])
def test_a_run_that_is_asked_to_stop_leaves_a_checkpoint_of_that_very_step_and_goes_on(
    experiment: Path,
    tmp_path: Path,
    unbroken: tuple[Path, TrainingResult],
    reason: StopReason,
    error: type[Exception],
) -> None:
    _, should_stop = stop_at(5, reason)

    with pytest.raises(error, match="step 5"):
        run(experiment, tmp_path, should_stop=should_stop)
    result = run(experiment, tmp_path)

    assert result.resumed_from == 5
    assert_same_weights(tmp_path, unbroken[0])


def test_another_worker_goes_on_from_the_folder_of_an_earlier_attempt_without_touching_it(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]
) -> None:
    first, second, third = tmp_path / "attempt-1", tmp_path / "attempt-2", tmp_path / "attempt-3"
    for folder, step in ((first, 2), (second, 7)):
        with pytest.raises(Preempted):
            run(experiment, folder, should_stop=stop_at(step, StopReason.PREEMPT)[1])
    before = {path: path.stat().st_mtime_ns for path in second.rglob("*") if path.is_file()}

    result = train(TrainingInputs(experiment, third, earlier=(first, second)), CONFIG, ignore)

    assert result.resumed_from == 7
    assert {path: path.stat().st_mtime_ns for path in second.rglob("*") if path.is_file()} == before
    assert steps_of(third) == list(range(1, 13))
    assert_same_weights(third, unbroken[0])


def test_a_damaged_newest_checkpoint_costs_only_the_steps_since_the_one_before(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]
) -> None:
    with pytest.raises(Preempted):
        run(experiment, tmp_path, should_stop=stop_at(8, StopReason.PREEMPT)[1])
    newest = max(tmp_path.glob("checkpoints/checkpoint-*")) / "state.pt"
    newest.write_bytes(newest.read_bytes()[:5000])

    result = run(experiment, tmp_path)

    assert result.resumed_from == 6
    assert steps_of(tmp_path) == list(range(1, 13))
    told = [line["damaged_checkpoints"] for line in runs.lines_of(tmp_path) if "damaged_checkpoints" in line]
    assert told == [["checkpoint-00000008.broken"]]
    assert "damaged checkpoints were set aside" in (tmp_path / "train.log").read_text()
    assert_same_weights(tmp_path, unbroken[0])


def test_a_finished_run_asked_again_answers_with_the_same_voice(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]
) -> None:
    shutil.copytree(unbroken[0], tmp_path / "run")

    again = run(experiment, tmp_path / "run")

    assert again.sha256 == unbroken[1].sha256
    assert again.resumed_from == 12


def test_the_time_limit_keeps_the_state_and_a_retry_goes_on(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]
) -> None:
    with pytest.raises(TrainingTimeout, match="time_limit_seconds of 7200 is over at step 4 of 12") as caught:
        run(experiment, tmp_path, clock=StepClock(tmp_path, 4))
    with pytest.raises(TrainingTimeout, match="at step 7 of 12"):
        run(experiment, tmp_path, clock=StepClock(tmp_path, 3))
    result = run(experiment, tmp_path)

    assert caught.value.field == "time_limit_seconds"
    assert (result.resumed_from, result.ended) == (7, "complete")
    assert_same_weights(tmp_path, unbroken[0])


def test_the_best_so_far_is_the_voice_when_the_time_is_over_if_so_configured(experiment: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, total_steps=100_000, best_on_timeout=True, validate_every_steps=2)

    result = run(experiment, tmp_path, config, clock=StepClock(tmp_path, 5))

    assert (result.ended, result.steps) == ("time_limit", 5)
    assert result.voice_step == result.best_step
    assert result.voice.is_file()


def test_a_time_budget_becomes_steps_once_and_a_resume_keeps_them(experiment: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, total_steps=None, train_seconds=6.0, checkpoint_every_steps=None)
    asked = [0]

    def stop_later() -> StopReason | None:
        asked[0] += (tmp_path / "run.json").exists()
        return StopReason.PREEMPT if asked[0] > 4 else None

    with pytest.raises(Preempted):
        run(experiment, tmp_path, config, should_stop=stop_later)
    decided = json.loads((tmp_path / "run.json").read_text())["total_steps"]
    result = run(experiment, tmp_path, config)

    assert result.total_steps == result.steps == decided >= FEWEST_STEPS


def test_a_run_without_improvement_stops_early_and_keeps_the_best(experiment: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(
        CONFIG, total_steps=500, learning_rate=0.05, early_stopping_patience=2, validate_every_steps=2
    )

    result = run(experiment, tmp_path, config)

    assert result.ended == "early_stop"
    assert result.steps < 500
    assert result.best_step is not None
    assert result.voice_step == result.best_step < result.steps
    assert run(experiment, tmp_path, config).sha256 == result.sha256


def test_another_configuration_or_dataset_cannot_go_on_with_a_run(experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    other = make_experiment(tmp_path / "other", sources=3)
    with pytest.raises(Preempted):
        run(experiment, folder, should_stop=stop_at(1, StopReason.PREEMPT)[1])

    with pytest.raises(Conflict, match=r"learning_rate is 0\.002") as caught:
        run(experiment, folder, dataclasses.replace(CONFIG, learning_rate=0.002))
    with pytest.raises(Conflict, match="dataset has changed"):
        run(other, folder)

    assert caught.value.field == "learning_rate"


def test_a_run_whose_checkpoints_are_gone_does_not_begin_anew_in_silence(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        run(experiment, tmp_path, should_stop=stop_at(4, StopReason.PREEMPT)[1])
    shutil.rmtree(tmp_path / "checkpoints")

    with pytest.raises(WorkFailed, match="none is left"):
        run(experiment, tmp_path)


def test_a_run_whose_checkpoints_are_all_broken_says_so(experiment: Path, tmp_path: Path) -> None:
    with pytest.raises(Preempted):
        run(experiment, tmp_path, should_stop=stop_at(4, StopReason.PREEMPT)[1])
    for state in tmp_path.glob("checkpoints/*/state.pt"):
        state.write_bytes(b"nothing")

    with pytest.raises(WorkFailed, match="none is whole"):
        run(experiment, tmp_path)


def poisoned(tmp_path: Path, sources: int) -> Path:
    """An experiment whose first recordings hold values so large that losses overflow, while every value is finite."""
    folder = make_experiment(tmp_path / "poisoned", sources=4, pieces=1, seconds=0.6)
    for i in range(sources):
        path = folder / f"3_feature768/{i}_0.npy"
        np.save(path, np.full_like(np.load(path), 3e38))
    return folder


def test_single_bad_steps_are_skipped_and_counted(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, batch_size=1, validation_split=0.0)

    result = run(poisoned(tmp_path, 1), tmp_path / "run", config)

    assert result.skipped_steps == 3
    assert result.steps == 12
    assert all(bool(torch.isfinite(value.float()).all()) for value in final_state(tmp_path / "run").values())


def test_bad_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, validation_split=0.0, bad_steps_in_a_row=3)

    with pytest.raises(TrainingDiverged, match="3 steps in a row"):
        run(poisoned(tmp_path, 4), tmp_path / "run", config)


def test_progress_is_repeated_while_a_step_lasts_and_said_at_the_end(
    experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The promise is a word every two seconds: a busy machine has as long again as the reporter plans for."""
    told: list[Progress] = []
    repeated = threading.Event()
    learn = Learner.learn
    batches: list[Batch] = []

    def report(progress: Progress) -> None:
        told.append(progress)
        if told.count(progress) >= 3:
            repeated.set()

    def learn_until_repeated(learner: Learner, batch: Batch) -> dict[str, float]:
        batches.append(batch)
        if len(batches) == CONFIG.total_steps:
            assert repeated.wait(60), "nothing was said while the last step lasted"
        return learn(learner, batch)

    monkeypatch.setattr(Learner, "learn", learn_until_repeated)
    train(TrainingInputs(experiment, tmp_path), CONFIG, report)

    last = told[-1]
    assert repeated.is_set()
    assert REPEAT_SECONDS <= 2 / 2
    assert (last.phase, last.step, last.total_steps, last.eta_seconds) == ("done", 12, 12, 0.0)
    assert last.loss == last.losses["loss"]
    assert last.steps_per_second


def test_a_full_disk_is_told_and_a_retry_with_space_goes_on(
    experiment: Path, tmp_path: Path, unbroken: tuple[Path, TrainingResult]
) -> None:
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY)); "
        "sys.argv[0] = 'training_main'; runpy.run_module('libs.voice.training_main', run_name='__main__')"
    )
    inputs = {"experiment": str(experiment), "run": str(tmp_path)}

    async def with_little_space() -> Outcome:
        child = TrainingChild(inputs, CONFIG.as_dict(), command=(sys.executable, "-c", limited))
        await child.start()
        return await child.wait()

    full = asyncio.run(with_little_space())
    left = [path.name for path in tmp_path.rglob("*") if path.name.startswith(".tmp-") or path.name.endswith(".part")]
    result = run(experiment, tmp_path)

    assert (full.ending, type(full.error)) == ("failed", StorageFull)
    assert left == []
    assert result.sha256 == unbroken[1].sha256


def test_the_number_of_threads_is_measured_once_and_kept_for_resumes(experiment: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, threads=None, total_steps=4)

    run(experiment, tmp_path, config, should_stop=lambda: None)
    plan = json.loads((tmp_path / "run.json").read_text())

    assert 1 <= plan["threads"] <= usable_cores()
    assert torch.get_num_threads() == plan["threads"]


def test_a_training_process_leaves_the_cores_to_others_while_it_waits(experiment: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"inputs": {"experiment": "none", "run": str(tmp_path / "run")}, "config": {}}))
    program = (
        "import os, sys, pathlib; from libs.voice.training_main import Voice, run_job; "
        f"run_job(pathlib.Path({str(job)!r}), Voice(1), []); print(os.environ['OMP_WAIT_POLICY'])"
    )

    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)

    assert done.stdout.splitlines()[-1] == "PASSIVE"
