"""What states can a job be in, and which steps does it take?"""

from __future__ import annotations

from enum import StrEnum

from libs.common.errors import IllegalTransition
from libs.common.providers import SPEECH_PRESETS


class JobState(StrEnum):
    """`pending` until it is queued; `completed`, `failed` and `cancelled` are its ends."""

    pending = "pending"
    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    cancelled = "cancelled"


class QueueState(StrEnum):
    """Where a job that is not over stands with the queue."""

    waiting = "waiting"
    delayed = "delayed"
    active = "active"


class Step(StrEnum):
    """The phases of a job; each is one command to one worker."""

    validate = "validate"
    preprocess = "preprocess"
    train = "train"
    index = "index"  # type: ignore[assignment]  # the phase has this name; nobody searches in it
    evaluate = "evaluate"
    publish = "publish"
    make = "make"
    convert = "convert"
    say = "say"


class JobKind(StrEnum):
    """What is asked for."""

    training = "training"
    preprocess = "preprocess"
    model = "model"  # a voice from files that are there: imported, extracted from a checkpoint, merged
    conversion = "conversion"  # recordings said in a voice
    speech = "speech"  # texts said by voices

    @property
    def address(self) -> str:
        """The part of the API's addresses below which such jobs are found: `/api/v1/<address>/jobs`."""
        return {"conversion": "convert", "speech": "synthesize"}.get(self.value, self.value)


# A kind of job is its list of steps. A new kind needs a line here, a command in `events.py` and one in the gateway's
# `commands.py`; everything else treats all kinds alike.
STEPS: dict[JobKind, tuple[Step, ...]] = {
    JobKind.training: (Step.validate, Step.preprocess, Step.train, Step.index, Step.evaluate, Step.publish),
    JobKind.preprocess: (Step.validate, Step.preprocess),
    JobKind.model: (Step.make,),
    JobKind.conversion: (Step.convert,),
    JobKind.speech: (Step.say,),
}

# A voice that speaks is learnt from clips and their texts as they are: nothing is extracted, and there is no index.
SPEECH_STEPS = (Step.validate, Step.preprocess, Step.train, Step.publish)

# Their steps write into the folders of a dataset, so two of one kind must not run on one at once (C-23).
WORKS_IN_DATASET = frozenset({JobKind.training, JobKind.preprocess})
MAKES_VOICE = frozenset({JobKind.training, JobKind.model})
# They use voices, and leave a sound for each of their inputs.
MAKES_SOUNDS = frozenset({JobKind.conversion, JobKind.speech})

# Share of a job's progress bar that each step takes, in percent.
WEIGHTS: dict[Step, float] = {
    Step.validate: 2,
    Step.preprocess: 23,
    Step.train: 65,
    Step.index: 4,
    Step.evaluate: 4,
    Step.publish: 2,
    Step.make: 100,
    Step.convert: 100,
    Step.say: 100,
}

TERMINAL = frozenset({JobState.completed, JobState.failed, JobState.cancelled})
ACTIVE = frozenset(set(JobState) - TERMINAL)

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.pending: frozenset({JobState.queued, JobState.cancelled, JobState.failed}),
    JobState.queued: frozenset({JobState.running, JobState.failed, JobState.cancelled}),
    JobState.running: frozenset({JobState.queued, JobState.completed, JobState.failed, JobState.cancelled}),
    JobState.completed: frozenset(),
    JobState.failed: frozenset({JobState.queued}),  # a person retries it
    JobState.cancelled: frozenset({JobState.queued}),  # a person takes it up again
}


def check_transition(now: JobState, to: JobState) -> None:
    """Raises IllegalTransition unless a job may go from `now` to `to`."""
    if to not in TRANSITIONS[now]:
        raise IllegalTransition(f"a job that is {now} cannot become {to}", state=now.value)


def steps_of(kind: JobKind, preset: str = "") -> tuple[Step, ...]:
    """The steps of a job; those of a training depend on who makes the voice, which its `preset` says."""
    return SPEECH_STEPS if kind is JobKind.training and preset in SPEECH_PRESETS else STEPS[kind]


def next_step(kind: JobKind, step: Step | None, preset: str = "") -> Step | None:
    """The step after `step` (the first one after None), or None when the job is done."""
    steps = steps_of(kind, preset)
    position = 0 if step is None else steps.index(step) + 1
    return steps[position] if position < len(steps) else None


def overall_progress(kind: JobKind, step: Step, fraction: float, preset: str = "") -> float:
    """Progress of the whole job in percent, 0-100, when `fraction` (0-1) of `step` is done."""
    steps = steps_of(kind, preset)
    total = sum(WEIGHTS[s] for s in steps)
    before = sum(WEIGHTS[s] for s in steps[: steps.index(step)])
    return round(100 * (before + WEIGHTS[step] * min(max(fraction, 0.0), 1.0)) / total, 2)


class Lane(StrEnum):
    high = "high"
    normal = "normal"
    low = "low"


def lane_of(priority: int) -> Lane:
    """The lane of a job's priority 0-100; 50 is the default and 80 counts as high (F-050)."""
    if priority >= 70:
        return Lane.high
    return Lane.normal if priority >= 30 else Lane.low
