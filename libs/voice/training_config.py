"""What can be turned about a training run, in which ranges, and what each preset takes when nothing is said?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from libs.common import training_options as asked
from libs.common.errors import InvalidInput

Optimizer = Literal["adamw", "adam", "radam"]
LossFunction = Literal["l1", "l2", "huber"]
Precision = Literal["auto", "fp32", "bf16"]
RvcCheckpoints = Literal["none", "end", "every"]


@dataclass(frozen=True)
class Preset:
    """A network and the training values that suit it. `sample_rate` in Hz; `content_width` of the features it reads."""

    name: str
    sample_rate: int
    content_width: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    needs_gpu: bool
    needs_f0: bool = True
    ema_decay: float = 0.0


def _rvc(version: int, rate: int) -> Preset:
    width = 256 if version == 1 else 768
    return Preset(f"rvc-v{version}-{rate // 1000}k", rate, width, 100, 4, 1e-4, 0.01, needs_gpu=True)


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("lite", 24_000, 768, 100, 8, 1e-3, 0.01, needs_gpu=False, ema_decay=0.99),
        Preset("rvc-tiny", 16_000, 768, 100, 4, 1e-3, 0.01, needs_gpu=False),
        *(_rvc(version, rate) for version in (2, 1) for rate in (32_000, 40_000, 48_000)),
    )
}

PRESETS_OWN = ("epochs", "batch_size", "learning_rate", "weight_decay", "ema_decay")


@dataclass(frozen=True)
class TrainingConfig:
    """A whole training run, in plain values; JSON-safe through `as_dict` and `from_dict`.

    `None` for `epochs`, `batch_size`, `learning_rate`, `weight_decay`, `ema_decay` means the preset's own value (see
    `resolved`).
    The length of a run is, in this order: `total_steps`, `train_seconds` (a time budget that becomes a number of steps
    by a measurement at the start, kept for resumes), `epochs`. `time_limit_seconds` is a limit and not a plan: it
    ends the run with a checkpoint, and with the best voice so far when `best_on_timeout`. `early_stopping_patience`
    counts epochs (validations where these are rarer); 0: off.

    A step learns from `batch_size` x `accumulation` x `processes` items. `batch_size` items are in memory at once, or
    fewer where they do not fit. `ema_decay`: 0 is off; else the voice is the moving average of the weights.
    `adversarial_steps`: how many of the last steps are made against judges (libs/voice/lite_judges.py), `lite` only;
    0: off. A run that stops getting better before them goes over to them at once.
    `loss_function` measures differences of spectra (l1 as RVC; l2 and huber are ours), `dropout` acts in RVC's encoder
    and on the content that `lite` reads, `augmentation` changes content and polarity (libs/voice/augmentation.py).
    `f0` false: a voice without pitch, RVC presets only. `rvc_checkpoints`: when `G_*.pth` and `D_*.pth` in RVC's own
    layout are written; RVC presets only. `pretrained`: auto (the bases for the preset if they are there), none, or the
    name of a folder of bases; `pretrained_generator` and `pretrained_discriminator` name files instead.
    Raises InvalidInput with the field's name for a value out of its range.
    """

    preset: str = "lite"
    epochs: int | None = None
    batch_size: int | None = None
    accumulation: int = 1
    processes: int = 1
    learning_rate: float | None = None
    weight_decay: float | None = None
    total_steps: int | None = None
    train_seconds: float | None = None
    validation_split: float = 0.2
    validate_every_steps: int | None = None
    early_stopping_patience: int = 10
    time_limit_seconds: float = 7200.0
    best_on_timeout: bool = False
    checkpoint_every_steps: int | None = None
    checkpoint_every_seconds: float = 60.0
    keep_checkpoints: int = 2
    seed: int = 1234
    optimizer: Optimizer = "adamw"
    loss_function: LossFunction = "l1"
    dropout: float = 0.0
    augmentation: bool = False
    ema_decay: float | None = None
    adversarial_steps: int = 0
    f0: bool = True
    bad_steps_in_a_row: int = 8
    device: str = "auto"
    precision: Precision = "auto"
    threads: int | None = None
    tensorboard: bool = True
    rvc_checkpoints: RvcCheckpoints = "end"
    pretrained: str = "auto"
    pretrained_generator: str | None = None
    pretrained_discriminator: str | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InvalidInput(f"preset {self.preset!r} is unknown; choose one of {', '.join(PRESETS)}", field="preset")
        _whole("epochs", self.epochs, *asked.EPOCHS)
        _whole("batch_size", self.batch_size, *asked.BATCH_SIZE)
        _whole("accumulation", self.accumulation, *asked.ACCUMULATION)
        _whole("processes", self.processes, 1, 64)
        _between("learning_rate", self.learning_rate, *asked.LEARNING_RATE)
        _between("weight_decay", self.weight_decay, *asked.WEIGHT_DECAY)
        _whole("total_steps", self.total_steps, 1, 10_000_000)
        _between("train_seconds", self.train_seconds, 1.0, 30 * 86_400.0)
        _between("validation_split", self.validation_split, *asked.VALIDATION_SPLIT)
        _whole("validate_every_steps", self.validate_every_steps, 1, 10_000_000)
        _whole("early_stopping_patience", self.early_stopping_patience, 0, 1000)
        _between("time_limit_seconds", self.time_limit_seconds, 0.1, 30 * 86_400.0)
        _whole("checkpoint_every_steps", self.checkpoint_every_steps, 1, 10_000_000)
        _between("checkpoint_every_seconds", self.checkpoint_every_seconds, 0.1, 86_400.0)
        _whole("keep_checkpoints", self.keep_checkpoints, 1, 100)
        _whole("seed", self.seed, 0, 2**63 - 1)
        _between("dropout", self.dropout, *asked.DROPOUT)
        _whole("bad_steps_in_a_row", self.bad_steps_in_a_row, 1, 1000)
        _whole("threads", self.threads, 1, 1024)
        _between("ema_decay", self.ema_decay, *asked.EMA_DECAY)
        _whole("adversarial_steps", self.adversarial_steps, *asked.ADVERSARIAL_STEPS)
        _one_of("optimizer", self.optimizer, get_args(Optimizer))
        _one_of("loss_function", self.loss_function, get_args(LossFunction))
        _one_of("precision", self.precision, get_args(Precision))
        _one_of("rvc_checkpoints", self.rvc_checkpoints, get_args(RvcCheckpoints))
        for name in ("augmentation", "f0", "best_on_timeout", "tensorboard"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidInput(f"{name} must be true or false, not {getattr(self, name)!r}", field=name)
        if self.preset == "lite" and not self.f0:
            raise InvalidInput("a lite voice needs pitch; choose an RVC preset for one without", field="f0")
        if self.preset != "lite" and self.adversarial_steps:
            raise InvalidInput(
                f"{self.preset} learns against judges in every step; leave it out, it is an option of lite",
                field="adversarial_steps",
            )

    def resolved(self) -> TrainingConfig:
        """This config with the preset's own values filled in (epochs, batch size, learning rate, the two decays)."""
        preset = PRESETS[self.preset]
        own = {name: getattr(preset, name) for name in PRESETS_OWN}
        return dataclasses.replace(self, **{k: v for k, v in own.items() if getattr(self, k) is None})

    def adversarial_steps_of(self, total: int) -> int:
        """How many of the last of `total` steps are made against judges."""
        return min(self.adversarial_steps, total)

    def warnings(self) -> list[str]:
        """What a person should know about these values: legal, and unusual for the preset (C-09)."""
        preset = PRESETS[self.preset]
        found = []
        if self.learning_rate is not None and self.learning_rate > 4 * preset.learning_rate:
            found.append(
                f"learning_rate {self.learning_rate:g} is far above the usual {preset.learning_rate:g} of "
                f"{preset.name}; the run may diverge"
            )
        return found

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainingConfig:
        """The config of `values`; raises InvalidInput for a field that does not exist or is out of range."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidInput(f"{name} is no training option; known are {', '.join(sorted(known))}", field=name)
        return cls(**values)


def _whole(name: str, value: Any, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidInput(f"{name} must be a whole number, not {value!r}", field=name)
    if not low <= value <= high:
        raise InvalidInput(f"{name} is {value}; it must be between {low} and {high}", field=name)


def _between(name: str, value: Any, low: float, high: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InvalidInput(f"{name} must be a number, not {value!r}", field=name)
    if not low <= value <= high:
        raise InvalidInput(f"{name} is {value:g}; it must be between {low:g} and {high:g}", field=name)


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidInput(f"{name} is {value!r}; it must be one of {', '.join(allowed)}", field=name)
