"""What can be turned about a fine-tune of XTTS, and what is taken when nothing is said?"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from libs.common.errors import InvalidInput

ON_GPU, ON_CPU = (16, 1), (2, 8)
"""Clips at once and batches to a step: sixteen clips each; two at once are what a CPU's memory holds."""


@dataclass(frozen=True)
class FineTuning:
    """A whole run, in plain values. `None` for `batch_size` and `accumulation` means what suits the device.

    `learning_rate` and `weight_decay` are upstream's for fine-tuning. The length is `total_steps`, else `epochs`;
    `time_limit_seconds` ends a run with a checkpoint, and with the best voice so far when `best_on_timeout`.
    `early_stopping_patience` counts epochs without a better loss on held-out clips; 0: off.
    Raises InvalidInput with the field's name for a value out of its range.
    """

    language: str
    epochs: int = 100
    batch_size: int | None = None
    accumulation: int | None = None
    learning_rate: float = 5e-6
    weight_decay: float = 1e-2
    validation_split: float = 0.2
    early_stopping_patience: int = 10
    total_steps: int | None = None
    time_limit_seconds: float = 7200.0
    best_on_timeout: bool = False
    seed: int = 1234
    checkpoint_every_seconds: float = 600.0
    keep_checkpoints: int = 1
    bad_steps_in_a_row: int = 8
    device: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, low, high in (
            ("epochs", 1, 1000),
            ("batch_size", 1, 64),
            ("accumulation", 1, 64),
            ("learning_rate", 1e-9, 0.1),
            ("weight_decay", 0.0, 1.0),
            ("validation_split", 0.0, 0.5),
            ("early_stopping_patience", 0, 1000),
            ("total_steps", 1, 1_000_000),
            ("time_limit_seconds", 0.1, 30 * 86_400.0),
            ("seed", 0, 2**63 - 1),
            ("checkpoint_every_seconds", 0.1, 86_400.0),
            ("keep_checkpoints", 1, 100),
            ("bad_steps_in_a_row", 1, 1000),
            ("threads", 1, 1024),
        ):
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise InvalidInput(f"{name} is {value:g}; it must be between {low:g} and {high:g}", field=name)

    def on(self, device: str) -> FineTuning:
        """This config with the sizes that suit a device, `cpu` or `cuda`, where nothing else was asked."""
        size, parts = ON_GPU if device.startswith("cuda") else ON_CPU
        return dataclasses.replace(
            self,
            batch_size=self.batch_size or size,
            accumulation=self.accumulation or (1 if self.batch_size else parts),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> FineTuning:
        """The config of `values`; raises InvalidInput for a field that does not exist or is out of range."""
        known = {field.name for field in dataclasses.fields(cls)}
        for name in values:
            if name not in known:
                raise InvalidInput(f"{name} is no option of XTTS; known are {', '.join(sorted(known))}", field=name)
        return cls(**values)
