"""How does a run tell where it is, at least every two seconds, even in the middle of a long step?"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

Phase = Literal["prepare", "measure", "train", "validate", "checkpoint", "export", "done"]


@dataclass(frozen=True)
class Progress:
    """Where a run is. `step` of `total_steps` are done; `eta_seconds` is None until there is a speed to judge by.

    `fraction`: the part (0…1) of the work that is done, where steps differ in what they cost; None: all are alike.
    """

    phase: Phase
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    validation: float | None = None
    best_step: int | None = None
    skipped_steps: int = 0
    steps_per_second: float | None = None
    eta_seconds: float | None = None
    fraction: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)


Report = Callable[[Progress], None]

REPEAT_SECONDS = 1.0
"""Half of what is promised, so that a busy machine has as long again to keep the promise."""


class Reporter:
    """Passes progress on when it is `every` seconds old, and repeats it from a thread while nothing new comes.

    `report` is called by one thread at a time. Use as a context manager.
    """

    def __init__(self, report: Report, every: float = REPEAT_SECONDS) -> None:
        self._report = report
        self._every = every
        self._latest = Progress("prepare")
        self._told = 0.0
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._repeat, name="progress", daemon=True)

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()

    def tell(self, progress: Progress, *, now: bool = False) -> None:
        """Remember `progress`; pass it on if the last word is old enough, a rare phase begins, or `now`."""
        with self._lock:
            is_news = progress.phase != self._latest.phase and progress.phase not in ("train", "validate", "checkpoint")
            self._latest = progress
            if now or is_news or time.monotonic() - self._told >= self._every:
                self._pass_on()

    def _repeat(self) -> None:
        left = self._every
        while not self._closing.wait(left):
            with self._lock:
                left = self._told + self._every - time.monotonic()
                if left <= 0:
                    self._pass_on()
                    left = self._every

    def _pass_on(self) -> None:
        self._told = time.monotonic()
        self._report(self._latest)


class Speed:
    """Steps per second over the last half minute or so."""

    def __init__(self, window: int = 200, seconds: float = 30.0) -> None:
        self._times: deque[float] = deque(maxlen=window)
        self._seconds = seconds

    def tick(self) -> None:
        """A step is done."""
        now = time.monotonic()
        self._times.append(now)
        while len(self._times) > 2 and now - self._times[0] > self._seconds:
            self._times.popleft()

    @property
    def per_second(self) -> float | None:
        """None before the second step."""
        if len(self._times) < 2 or self._times[-1] <= self._times[0]:
            return None
        return (len(self._times) - 1) / (self._times[-1] - self._times[0])
