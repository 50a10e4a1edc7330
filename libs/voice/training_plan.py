"""How long will a run be, and on how many threads? Decided once, by measuring with weights that are thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable

from libs.voice.device import set_threads
from libs.voice.faults import BadStep
from libs.voice.learning import Learner
from libs.voice.pace import trial_of_speed, trial_of_threads
from libs.voice.team import Team
from libs.voice.training_config import TrainingConfig

VALIDATIONS_PER_RUN = 20
FEWEST_STEPS = 10
TRIALS_TOGETHER = 6


class Trial:
    """Measures steps. Several processes make the same number of them, and the slowest counts."""

    def __init__(self, learner: Learner, team: Team, before_each: Callable[[], object], say: Callable[[str], None]):
        self._learner = learner
        self._team = team
        self._before_each = before_each
        self._say = say

    def threads(self, most: int) -> int:
        """The faster of `most` threads and one; they are set."""
        times = trial_of_threads(self._seconds, most)
        self._say(f"{most} threads: " + ", ".join(f"{n}: {t:.3f} s per step" for n, t in times.items()))
        return set_threads(min(times, key=lambda count: times[count]))

    def steps_within(self, seconds: float, validate: Callable[[], object]) -> int:
        """How many steps, with their validations, fit into `seconds` from now on; at least a few."""
        begun = time.monotonic()
        if self._team.size > 1:
            per_step = min(self._seconds(number) for number in range(TRIALS_TOGETHER))
        else:
            per_step = trial_of_speed(self._seconds, seconds)
        before = time.monotonic()
        validate()
        validations = VALIDATIONS_PER_RUN * (time.monotonic() - before)
        left = seconds - (time.monotonic() - begun) - validations
        steps = max(int(0.95 * left / per_step), FEWEST_STEPS)
        self._say(f"{per_step:.3f} s per step: {steps} steps in {seconds:.0f} s")
        return steps

    def _seconds(self, number: int) -> float:
        self._before_each()
        before = time.monotonic()
        try:
            self._learner.learn(self._learner.batch(number))
        except BadStep:
            pass
        (slowest,) = self._team.most([time.monotonic() - before])
        return slowest


def validation_interval(config: TrainingConfig, total_steps: int, steps_per_epoch: int) -> int:
    """Steps between two validations: as asked, or once per epoch and 20 times in a run at most."""
    if config.validate_every_steps is not None:
        return config.validate_every_steps
    return max(steps_per_epoch, -(-total_steps // VALIDATIONS_PER_RUN))
