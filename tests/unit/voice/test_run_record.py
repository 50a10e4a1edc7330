"""What a run remembers is whole, wherever it is copied to, and is readable by every reader of JSON."""

from __future__ import annotations

import dataclasses
import errno
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from libs.common.errors import Conflict, StorageFull
from libs.voice.run_record import MetricsLog, RunFolder, check_same_run
from libs.voice.training_config import TrainingConfig


def no_links(*_: Any) -> NoReturn:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def an_earlier_run(folder: Path) -> RunFolder:
    earlier = RunFolder(folder)
    earlier.write_plan({"total_steps": 7})
    earlier.best(5).write_bytes(b"a voice")
    return earlier


def test_an_earlier_run_is_taken_over_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    an_earlier_run(tmp_path / "one")
    monkeypatch.setattr(os, "link", no_links)
    run = RunFolder(tmp_path / "two")

    run.adopt([tmp_path / "one"])

    assert run.best(5).read_bytes() == b"a voice"
    assert run.read_plan() == {"total_steps": 7}


def test_a_full_disk_leaves_no_half_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Any, target: Any) -> NoReturn:
        target.write(source.read(3))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    an_earlier_run(tmp_path / "one")
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copyfileobj", half)
    run = RunFolder(tmp_path / "two")

    with pytest.raises(StorageFull):
        run.adopt([tmp_path / "one"])

    assert list(run.root.iterdir()) == []


def test_a_plan_says_that_there_was_a_checkpoint(tmp_path: Path) -> None:
    run = an_earlier_run(tmp_path)
    run.check_nothing_lost()

    run.mark_checkpoint()

    assert run.read_plan() == {"total_steps": 7, "has_checkpoint": True}


def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)

    with pytest.raises(ValueError, match="JSON"):
        log.write(step=1, loss=float("nan"))

    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""


OTHER_VALUES = TrainingConfig(
    preset="rvc-tiny",
    epochs=7,
    batch_size=3,
    accumulation=2,
    processes=2,
    learning_rate=2e-4,
    weight_decay=0.1,
    total_steps=9,
    train_seconds=60.0,
    validation_split=0.1,
    validate_every_steps=5,
    early_stopping_patience=4,
    time_limit_seconds=60.0,
    best_on_timeout=True,
    checkpoint_every_steps=5,
    checkpoint_every_seconds=9.0,
    keep_checkpoints=3,
    seed=5,
    optimizer="radam",
    loss_function="huber",
    dropout=0.2,
    augmentation=True,
    ema_decay=0.9,
    f0=False,
    bad_steps_in_a_row=3,
    device="cpu",
    precision="bf16",
    threads=2,
    tensorboard=False,
    rvc_checkpoints="every",
    pretrained="mine",
    pretrained_generator="g.pth",
    pretrained_discriminator="d.pth",
).as_dict() | {"adversarial_steps": 7}
LIMITS = {
    *("time_limit_seconds", "best_on_timeout", "checkpoint_every_steps", "checkpoint_every_seconds"),
    *("keep_checkpoints", "bad_steps_in_a_row", "device", "threads", "tensorboard", "rvc_checkpoints"),
}


@pytest.mark.parametrize("name", sorted(OTHER_VALUES))
def test_a_run_goes_on_with_other_limits_and_with_no_other_recipe(name: str) -> None:
    begun = TrainingConfig(preset="lite" if name == "adversarial_steps" else "rvc-v2-40k")
    plan = {"config": begun.as_dict(), "dataset": "d"}
    changed = dataclasses.replace(begun, **{name: OTHER_VALUES[name]})
    assert changed != begun

    if name in LIMITS:
        check_same_run(plan, changed, "d")
        return
    with pytest.raises(Conflict, match=f"{name} is .* but this run began with") as refusal:
        check_same_run(plan, changed, "d")
    assert refusal.value.field == name


def test_a_run_goes_on_with_its_own_dataset_only() -> None:
    plan = {"config": TrainingConfig().as_dict(), "dataset": "d"}

    with pytest.raises(Conflict, match="dataset has changed"):
        check_same_run(plan, TrainingConfig(), "e")
