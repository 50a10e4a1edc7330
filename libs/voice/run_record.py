"""What does a run remember beside its checkpoints? Its plan, its curve, its log, and what an earlier attempt left."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common.errors import Conflict, WorkFailed
from libs.voice.atomic import storage_full_told, write_text_atomically
from libs.voice.checkpoint import newest_step
from libs.voice.training_config import TrainingConfig

FIXED = (
    "preset",
    "epochs",
    "batch_size",
    "learning_rate",
    "weight_decay",
    "total_steps",
    "train_seconds",
    "validation_split",
    "validate_every_steps",
    "early_stopping_patience",
    "seed",
    "optimizer",
    "dropout",
    "augmentation",
    "precision",
    "pretrained_generator",
    "pretrained_discriminator",
)
"""Options that a run keeps from first to last; the others (limits, intervals, device) may change on resume."""


class RunFolder:
    """The folder of one attempt at a run: run.json, checkpoints/, metrics.jsonl, train.log, best-*.pth, voice.pth."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.plan_file = root / "run.json"
        self.metrics_file = root / "metrics.jsonl"
        self.log_file = root / "train.log"
        root.mkdir(parents=True, exist_ok=True)

    def best(self, step: int) -> Path:
        """The voice as it was when it was best on held-out speech."""
        return self.root / f"best-{step:08d}.pth"

    def read_plan(self) -> dict[str, Any] | None:
        """What was decided at the first start; None for a fresh run. Raises WorkFailed for a damaged plan."""
        try:
            plan: dict[str, Any] = json.loads(self.plan_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise WorkFailed(f"run.json of this run is damaged: {error}") from error
        return plan

    def write_plan(self, plan: Mapping[str, Any]) -> None:
        """Atomic; raises StorageFull."""
        write_text_atomically(self.plan_file, json.dumps(plan, indent=2, sort_keys=True))

    def adopt(self, earlier: Iterable[Path]) -> int | None:
        """Take over plan, checkpoints, curve and best voices of the earlier attempt that came furthest.

        Only for a folder that has no plan yet. Checkpoints are hard-linked (they are never changed in place), the rest
        is copied: whoever still writes in the earlier folder cannot touch this one. Returns the step taken over.
        """
        if self.plan_file.exists():
            return None
        others = [RunFolder(path) for path in earlier if (path / "run.json").is_file()]
        if not others:
            return None
        source = max(others, key=lambda other: newest_step(other.checkpoints) or 0)
        with storage_full_told("the earlier attempt's state"):
            if source.checkpoints.is_dir():
                shutil.copytree(source.checkpoints, self.checkpoints, copy_function=_link, dirs_exist_ok=True)
            for path in source.root.glob("best-*.pth"):
                _link(str(path), str(self.root / path.name))
            if source.metrics_file.exists():
                shutil.copyfile(source.metrics_file, self.metrics_file)
            if source.log_file.exists():
                shutil.copyfile(source.log_file, self.log_file)
            # the plan comes last: without it the whole is taken over again
            self.write_plan(source.read_plan() or {})
        return newest_step(self.checkpoints)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)


def check_same_run(plan: Mapping[str, Any], config: TrainingConfig, data: str) -> None:
    """Raises Conflict when a run that has begun is asked to go on with other options or another dataset."""
    begun = plan["config"]
    given = config.as_dict()
    for name in FIXED:
        if begun.get(name) != given[name]:
            raise Conflict(
                f"{name} is {given[name]!r}, but this run began with {begun.get(name)!r}; start a new run to change it",
                field=name,
            )
    if plan["dataset"] != data:
        raise Conflict("the dataset has changed since this run began; start a new run to use it", field="dataset")


class MetricsLog:
    """`metrics.jsonl`: one line per step or validation, no step twice."""

    def __init__(self, path: Path, from_step: int) -> None:
        """Opens for appending; what a killed run wrote beyond its checkpoint, after `from_step`, is dropped."""
        kept = []
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    if int(json.loads(line)["step"]) <= from_step:
                        kept.append(line)
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a killed writer
        write_text_atomically(path, "".join(f"{line}\n" for line in kept))
        self._stream = path.open("a", encoding="utf-8", buffering=1)

    def write(self, **values: Any) -> None:
        """One line; raises StorageFull."""
        with storage_full_told("metrics.jsonl"):
            self._stream.write(json.dumps(values) + "\n")

    def close(self) -> None:
        self._stream.close()


class TrainLog:
    """`train.log`: what happened, for people."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("a", encoding="utf-8", buffering=1)

    def __call__(self, text: str) -> None:
        with storage_full_told("train.log"):
            self._stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    def close(self) -> None:
        self._stream.close()
