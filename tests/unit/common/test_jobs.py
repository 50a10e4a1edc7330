"""The job state machine has one table, and everything else is an error."""

from __future__ import annotations

import itertools

import pytest

from libs.common.errors import IllegalTransition
from libs.common.jobs import (
    TERMINAL,
    TRANSITIONS,
    JobKind,
    JobState,
    Lane,
    Step,
    check_transition,
    lane_of,
    next_step,
    overall_progress,
    steps_of,
)
from libs.common.providers import SPEECH_PRESETS


def test_a_job_is_in_one_of_the_six_states_of_the_documents() -> None:
    assert [state.value for state in JobState] == ["pending", "queued", "running", "completed", "failed", "cancelled"]
    assert {JobState.completed, JobState.failed, JobState.cancelled} == set(TERMINAL)
    assert TRANSITIONS[JobState.completed] == set()
    assert JobState.running in TRANSITIONS[JobState.queued]


@pytest.mark.parametrize(("now", "to"), list(itertools.product(JobState, JobState)))
def test_only_transitions_of_the_table_are_allowed(now: JobState, to: JobState) -> None:
    if to in TRANSITIONS[now]:
        check_transition(now, to)
    else:
        with pytest.raises(IllegalTransition, match=now.value):
            check_transition(now, to)


def test_a_completed_job_goes_nowhere() -> None:
    assert TRANSITIONS[JobState.completed] == frozenset()


def test_every_state_leads_to_an_end() -> None:
    for state in set(JobState) - TERMINAL:
        reached, frontier = {state}, {state}
        while frontier:
            frontier = {to for s in frontier for to in TRANSITIONS[s]} - reached
            reached |= frontier
        assert reached >= TERMINAL


def test_a_training_job_takes_six_steps_in_order() -> None:
    assert _in_order("lite") == ["validate", "preprocess", "train", "index", "evaluate", "publish"]


@pytest.mark.parametrize("preset", sorted(SPEECH_PRESETS))
def test_a_voice_that_speaks_has_no_index_and_no_conversion_to_evaluate(preset: str) -> None:
    assert _in_order(preset) == ["validate", "preprocess", "train", "publish"]


def _in_order(preset: str) -> list[str]:
    steps: list[Step] = []
    step = next_step(JobKind.training, None, preset)
    while step is not None:
        steps.append(step)
        step = next_step(JobKind.training, step, preset)
    return [s.value for s in steps]


@pytest.mark.parametrize(("kind", "preset"), [*((kind, "lite") for kind in JobKind), (JobKind.training, "xtts-v2")])
def test_progress_grows_from_0_to_100_over_the_steps(kind: JobKind, preset: str) -> None:
    steps = steps_of(kind, preset)
    points = [overall_progress(kind, step, f, preset) for step in steps for f in (0.0, 0.5, 1.0)]

    assert points == sorted(points)
    assert points[0] == 0
    assert points[-1] == 100


@pytest.mark.parametrize(
    ("priority", "lane"),
    [
        (0, Lane.low),
        (29, Lane.low),
        (30, Lane.normal),
        (50, Lane.normal),
        (69, Lane.normal),
        (70, Lane.high),
        (100, Lane.high),
    ],
)
def test_priority_decides_the_lane(priority: int, lane: Lane) -> None:
    assert lane_of(priority) is lane
