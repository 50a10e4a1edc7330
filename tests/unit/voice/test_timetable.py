"""A run's time is over when its limit is, and checkpoints take a twentieth of it at most."""

from __future__ import annotations

from libs.voice.timetable import CHECKPOINT_SHARE, Timetable
from libs.voice.training_config import TrainingConfig


class Watch:
    """Shows what a test says."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_time_is_over_at_its_limit_and_not_before() -> None:
    watch = Watch()
    times = Timetable(TrainingConfig(time_limit_seconds=60.0), watch)

    watch.now = 1059.9
    assert not times.is_over
    watch.now = 1060.0
    assert times.is_over
    assert times.seconds == 60.0


def test_a_checkpoint_is_due_an_interval_after_the_first_step_and_after_the_last_checkpoint() -> None:
    watch = Watch()
    times = Timetable(TrainingConfig(checkpoint_every_seconds=30.0), watch)

    watch.now += 300  # preparing and measuring is nothing that a checkpoint could keep
    times.begin_steps()
    assert not times.checkpoint_is_due
    watch.now += 30
    assert times.checkpoint_is_due
    with times.saving():
        watch.now += 1
    assert not times.checkpoint_is_due
    watch.now += 30
    assert times.checkpoint_is_due


def test_slow_checkpoints_are_made_more_rarely() -> None:
    watch = Watch()
    times = Timetable(TrainingConfig(checkpoint_every_seconds=30.0), watch)

    with times.saving():
        watch.now += 10
    watch.now += CHECKPOINT_SHARE * 10 - 1
    assert not times.checkpoint_is_due
    watch.now += 1
    assert times.checkpoint_is_due


def test_checkpoints_by_steps_are_never_due_by_time() -> None:
    watch = Watch()
    times = Timetable(TrainingConfig(checkpoint_every_steps=5), watch)

    watch.now += 1e9

    assert not times.checkpoint_is_due
