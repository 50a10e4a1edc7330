"""What goes into a training run, what comes out, and how it is asked to stop?"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any


class StopReason(Enum):
    """Why a run is asked to end: somebody cancelled it, or its worker must go and another will go on."""

    CANCEL = "cancel"
    PREEMPT = "preempt"


ShouldStop = Callable[[], StopReason | None]


@dataclass(frozen=True)
class TrainingInputs:
    """Where a run reads and writes.

    experiment  the prepared folder, with `filelist.txt` (or `filelist`)
    run         this attempt's own folder: run.json, checkpoints/, metrics.jsonl, train.log, voice.pth
    earlier     folders of earlier attempts of the same job; the one that came furthest is taken over
    bases       the folder of pretrained bases (PRETRAINED_ROOT), if there is one
    encoder     checksum of the content encoder whose features the experiment holds, if it is known
    """

    experiment: Path
    run: Path
    filelist: Path | None = None
    earlier: tuple[Path, ...] = ()
    bases: Path | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class TrainingResult:
    """A finished run. `ended`: complete, early_stop or time_limit; `voice` is the file, of `voice_step`.

    `batch`: `size` of a step over all processes, and `part`, how many of its items were in memory at once. `bases`: the
    pretrained files that it began with, by module, with `file` and `sha256`. `adversarial_steps`: how many of the steps
    up to `voice_step` were made against the judges of a finish. `speakers`: the numbers of those who are in the speech.
    """

    voice: Path
    sha256: str
    voice_step: int
    steps: int
    total_steps: int
    epochs: int
    ended: str
    adversarial_steps: int
    losses: dict[str, float]
    best_step: int | None
    best_loss: float | None
    skipped_steps: int
    seconds: float
    resumed_from: int | None
    preset: str
    sample_rate: int
    content_width: int
    device: str
    split: dict[str, Any]
    batch: dict[str, int]
    bases: dict[str, dict[str, str]]
    speakers: list[int]
    warnings: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `speakers` are named where there is more than speaker 0."""
        values = dataclasses.asdict(self) | {"voice": str(self.voice)}
        if self.speakers == [0]:
            del values["speakers"]
        return values
