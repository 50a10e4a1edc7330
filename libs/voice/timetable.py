"""When is a training run's time over, and when is its next checkpoint due?"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from libs.voice.training_config import TrainingConfig

Clock = Callable[[], float]
"""Seconds since any moment, never going back: `time.monotonic`, or whatever a test lets go by."""

CHECKPOINT_SHARE = 20
"""A checkpoint may take a twentieth of the time at most: slow disks and large networks get longer intervals."""


class Timetable:
    """One call of `train`, from its first moment; all times are seconds."""

    def __init__(self, config: TrainingConfig, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._limit = config.time_limit_seconds
        self._shortest = config.checkpoint_every_seconds if config.checkpoint_every_steps is None else math.inf
        self._interval = self._shortest
        self._began = self._saved = clock()

    @property
    def seconds(self) -> float:
        """How long the call has lasted."""
        return self._clock() - self._began

    @property
    def is_over(self) -> bool:
        """Whether `time_limit_seconds` have gone by."""
        return self.seconds >= self._limit

    @property
    def checkpoint_is_due(self) -> bool:
        """Whether the interval since the last checkpoint is over; never where checkpoints go by steps."""
        return self._clock() - self._saved >= self._interval

    def begin_steps(self) -> None:
        """The first step comes now: there is nothing to save from before."""
        self._saved = self._clock()

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Around a checkpoint that was due: the next interval begins behind it and is 20 times as long at least."""
        before = self._clock()
        yield
        self._saved = self._clock()
        self._interval = max(self._shortest, CHECKPOINT_SHARE * (self._saved - before))
