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
from libs.voice.atomic import storage_full_told, write_atomically, write_text_atomically
from libs.voice.checkpoint import newest_step
from libs.voice.event_file import EventFile
from libs.voice.training_config import TrainingConfig

MAY_CHANGE = frozenset(
    {
        "time_limit_seconds",
        "best_on_timeout",
        "checkpoint_every_steps",
        "checkpoint_every_seconds",
        "keep_checkpoints",
        "bad_steps_in_a_row",
        "device",
        "threads",
        "tensorboard",
        "rvc_checkpoints",
    }
)
"""Limits, intervals, machines and extra files may change on resume; every other option stays as the run began."""


class RunFolder:
    """The folder of one attempt at a run: run.json, checkpoints/, metrics.jsonl, train.log, tensorboard/,
    best-*.pth, voice.pth, and G_*.pth and D_*.pth of RVC presets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkpoints = root / "checkpoints"
        self.plan_file = root / "run.json"
        self.metrics_file = root / "metrics.jsonl"
        self.log_file = root / "train.log"
        self.events = root / "tensorboard"
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

    def mark_checkpoint(self) -> None:
        """The plan remembers that a checkpoint was committed: a run that has lost all of them must not begin anew."""
        plan = self.read_plan()
        if plan is not None and not plan.get("has_checkpoint"):
            self.write_plan(plan | {"has_checkpoint": True})

    def check_nothing_lost(self) -> None:
        """Raises WorkFailed when the plan knows of a checkpoint and there is none."""
        if (self.read_plan() or {}).get("has_checkpoint") and newest_step(self.checkpoints) is None:
            raise WorkFailed(
                "this run has had checkpoints and none is left; it does not begin from nothing unasked",
                actions=("Restore a checkpoint from a backup, or start a new training: a retry would find the same.",),
            )

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
        plan = source.read_plan() or {}  # before its checkpoints: it must not know of one that was not taken
        with storage_full_told("the earlier attempt's state"):
            if source.checkpoints.is_dir():
                shutil.copytree(source.checkpoints, self.checkpoints, copy_function=_link, dirs_exist_ok=True)
            for path in source.root.glob("best-*.pth"):
                _link(str(path), str(self.root / path.name))
            if source.metrics_file.exists():
                shutil.copyfile(source.metrics_file, self.metrics_file)
            if source.events.is_dir():
                shutil.copytree(source.events, self.events, dirs_exist_ok=True)
            if source.log_file.exists():
                shutil.copyfile(source.log_file, self.log_file)
            # the plan comes last: without it the whole is taken over again
            self.write_plan(plan)
        return newest_step(self.checkpoints)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:  # another file system, or one without links
        with open(source, "rb") as whole:
            write_atomically(Path(target), lambda stream: shutil.copyfileobj(whole, stream))


def check_same_run(plan: Mapping[str, Any], config: TrainingConfig, data: str) -> None:
    """Raises Conflict when a run that has begun is asked to go on with other options or another dataset."""
    # options that came later than the run have their defaults in it
    begun = TrainingConfig().as_dict() | plan["config"]
    for name, given in config.as_dict().items():
        if name not in MAY_CHANGE and begun[name] != given:
            raise Conflict(
                f"{name} is {given!r}, but this run began with {begun[name]!r}; start a new run to change it",
                field=name,
            )
    if plan["dataset"] != data:
        raise Conflict("the dataset has changed since this run began; start a new run to use it", field="dataset")


class Curves:
    """What a run tells of its steps: `metrics.jsonl` for programs, `tensorboard/` for TensorBoard."""

    def __init__(self, folder: RunFolder, from_step: int, *, tensorboard: bool) -> None:
        """What a killed run wrote after `from_step` is dropped, and is written again."""
        self._lines = MetricsLog(folder.metrics_file, from_step)
        self._events = EventFile(folder.events, from_step + 1) if tensorboard else None

    def step(self, step: int, epoch: int, losses: Mapping[str, float], rates: Mapping[str, float]) -> None:
        """The losses of a step, and learning rates by module."""
        self._lines.write(step=step, epoch=epoch, **losses)
        tags = {f"loss/{name}": value for name, value in losses.items()}
        self._scalars(step, tags | {f"learning_rate/{name}": value for name, value in rates.items()})

    def validation(self, step: int, epoch: int, losses: Mapping[str, float]) -> None:
        """The losses on held-out speech after a step."""
        self._lines.write(step=step, epoch=epoch, validation=dict(losses))
        self._scalars(step, {f"validation/{name}": value for name, value in losses.items()})

    def event(self, step: int, epoch: int, **values: Any) -> None:
        """Something that happened: a skipped step, a smaller part."""
        self._lines.write(step=step, epoch=epoch, **values)
        self._scalars(step, {f"event/{name}": v for name, v in values.items() if isinstance(v, (int, float))})

    def close(self) -> None:
        """No more is written; both files are whole."""
        self._lines.close()
        if self._events is not None:
            self._events.close()

    def _scalars(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is not None and values:
            self._events.scalars(step, values)


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
        """One line; raises StorageFull, and ValueError for NaN and infinity, which JSON does not know."""
        with storage_full_told("metrics.jsonl"):
            self._stream.write(json.dumps(values, allow_nan=False) + "\n")

    def close(self) -> None:
        """No more is written."""
        self._stream.close()


class TrainLog:
    """`train.log`: what happened, for people. With several processes only the first one writes."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        self._path = path if writes else None

    def __call__(self, text: str) -> None:
        """One line; raises StorageFull."""
        if self._path is None:
            return
        with storage_full_told("train.log"), self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
