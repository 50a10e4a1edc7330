"""How fast does this machine train? Short trials before a run, with weights that are thrown away."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from libs.voice.device import set_threads

THREAD_TRIAL_SECONDS = 3.0
TrialStep = Callable[[int], float]
"""Makes the step of that number and returns its seconds."""


def trial_of_threads(step: TrialStep, most: int) -> dict[int, float]:
    """Seconds per step with `most` threads and with one: small networks are faster on one core than on several.

    A network whose step takes longer than the trial is not tried with one: it is better off with all cores.
    """
    times: dict[int, float] = {}
    for count in (most, 1):
        set_threads(count)
        rounds: list[float] = []
        while len(rounds) < 4 and sum(rounds) < THREAD_TRIAL_SECONDS:
            rounds.append(step(len(rounds)))
        times[count] = min(rounds)
        if times[count] > THREAD_TRIAL_SECONDS:
            break
    return times


def trial_of_speed(step: TrialStep, budget: float) -> float:
    """Median seconds per step, found in about 3 % of `budget` seconds (1 to 15 s), in a quarter of it at most."""
    begun = time.monotonic()
    patience = min(max(0.03 * budget, 1.0), 15.0)
    times: list[float] = []
    while len(times) < 5 or (time.monotonic() - begun < patience and len(times) < 200):
        times.append(step(len(times)))
        if len(times) >= 2 and time.monotonic() - begun > 0.25 * budget:
            break
    # the first steps warm caches up and say nothing about the rest
    return statistics.median(times[2:] or times)
