"""How long will a run be, and on how many threads? Decided once, by measuring with weights that are thrown away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from libs.voice.device import set_threads
from libs.voice.faults import BadStep
from libs.voice.learning import Learner
from libs.voice.pace import trial_of_speed, trial_of_threads
from libs.voice.team import Team
from libs.voice.training_config import TrainingConfig

VALIDATIONS_PER_RUN = 20
FEWEST_STEPS = 10
TRIALS_TOGETHER = 6
PLANNED = 0.8
"""Of the time that is left: the first steps, by which the others are counted, are the quickest (docs/benchmarks.md)."""
FINISH_COST = 2.2
"""How many steps of the usual kind one of a finish costs where it was not measured (docs/models.md)."""


@dataclass(frozen=True)
class Course:
    """How long a run is: `total` steps, of which those after `first` are its finish; one there costs `cost` others."""

    total: int = 0
    first: int = 0
    cost: float = FINISH_COST

    def finished_from(self, step: int) -> Course:
        """The course of a run whose finish begins after `step` steps already: those that are left of them are saved."""
        return Course(min(self.total, step + self.total - self.first), step, self.cost)

    def work(self, done: int) -> tuple[float, float]:
        """What is done after `done` steps and what is left, counted in steps as the last one."""
        unit = self.cost if done > self.first else 1.0
        return self._cost(done) / unit, (self._cost(self.total) - self._cost(done)) / unit

    def _cost(self, steps: int) -> float:
        return min(steps, self.first) + self.cost * max(steps - self.first, 0)


class Trial:
    """Measures steps. Several processes make the same number of them, and the slowest counts."""

    def __init__(self, learner: Learner, team: Team, before_each: Callable[[], object], say: Callable[[str], None]):
        self._learner = learner
        self._team = team
        self._before_each = before_each
        self._say = say
        self.finish_cost = FINISH_COST
        """How many steps of the usual kind one of the finish costs, measured where that decides how many there are."""

    def threads(self, most: int) -> int:
        """The faster of `most` threads and one; they are set."""
        times = trial_of_threads(self._seconds, most)
        self._say(f"{most} threads: " + ", ".join(f"{n}: {t:.3f} s per step" for n, t in times.items()))
        return set_threads(min(times, key=lambda count: times[count]))

    def steps_within(self, seconds: float, validate: Callable[[], object], finish_of: Callable[[int], int]) -> int:
        """How many steps, with their validations, fit into `seconds` from now on; at least a few.

        `finish_of`: how many of so many steps are the finish of a run, in which a step has a cost of its own.
        """
        begun = time.monotonic()
        per_step, finishing = self._costs(seconds, finish_of)
        before = time.monotonic()
        validate()
        validations = VALIDATIONS_PER_RUN * (time.monotonic() - before)
        left = seconds - (time.monotonic() - begun) - validations
        steps = max(most_steps(PLANNED * left, per_step, finishing, finish_of), FEWEST_STEPS)
        against = f", {finishing:.3f} s in the finish" if finish_of(steps) else ""
        self._say(f"{per_step:.3f} s per step{against}: {steps} steps in {seconds:.0f} s")
        return steps

    def _costs(self, seconds: float, finish_of: Callable[[int], int]) -> tuple[float, float]:
        """Seconds per step before and in the finish, found in a small part of `seconds`; without one both are alike."""
        per_step = self._cost(seconds)
        if not finish_of(int(seconds / per_step)):
            return per_step, per_step
        self._learner.recipe.finish_from(0, 1000)
        self.finish_cost = max(self._cost(seconds / 2) / per_step, 1.0)
        return per_step, per_step * self.finish_cost

    def _cost(self, seconds: float) -> float:
        if self._team.size > 1:
            return min(self._seconds(number) for number in range(TRIALS_TOGETHER))
        return trial_of_speed(self._seconds, seconds)

    def _seconds(self, number: int) -> float:
        self._before_each()
        before = time.monotonic()
        try:
            self._learner.learn(self._learner.batch(number))
        except BadStep:
            pass
        (slowest,) = self._team.most([time.monotonic() - before])
        return slowest


def most_steps(seconds: float, per_step: float, finishing: float, finish_of: Callable[[int], int]) -> int:
    """The longest run that `seconds` suffice for, of steps that cost `per_step` and `finishing` seconds."""

    def cost(steps: int) -> float:
        finish = finish_of(steps)
        return (steps - finish) * per_step + finish * finishing

    low, high = 0, int(seconds / min(per_step, finishing)) + 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if cost(middle) <= seconds else (low, middle - 1)
    return low


def validation_interval(config: TrainingConfig, total_steps: int, steps_per_epoch: int) -> int:
    """Steps between two validations: as asked, or once per epoch and 20 times in a run at most."""
    if config.validate_every_steps is not None:
        return config.validate_every_steps
    return max(steps_per_epoch, -(-total_steps // VALIDATIONS_PER_RUN))
