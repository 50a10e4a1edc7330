"""What do people watch while a job goes on?"""

from __future__ import annotations

from typing import Any, ClassVar

from libs.common.events.content import Data
from libs.common.jobs import JobState, QueueState, Step


class Progress(Data):
    """On `prg.job.<id>`: what people watch."""

    kind: ClassVar[str]

    job_id: str

    def subject(self) -> str:
        return f"prg.job.{self.job_id}"


class StepProgress(Progress):
    """How far a worker is. `fraction` is 0-1 of the step; `loss` and `eta_seconds` where they make sense."""

    kind = "progress"

    step: Step
    fraction: float = 0.0
    done: int = 0
    total: int = 0
    loss: float | None = None
    losses: dict[str, float] = {}
    eta_seconds: float | None = None
    steps_per_second: float | None = None
    message: str = ""
    worker: str = ""
    token: int = 0


class JobChanged(Progress):
    """The gateway's word on a transition, in the same stream so that a feed has one order."""

    kind = "state"

    state: JobState
    phase: Step | None = None
    queue_state: QueueState | None = None
    progress: float = 0.0
    attempt: int = 1
    version: int = 0
    problem: dict[str, Any] | None = None
    cancel_requested: bool = False

    @property
    def is_terminal(self) -> bool:
        return self.state in (JobState.completed, JobState.failed, JobState.cancelled)
