"""What does a job look like to its owner?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from libs.common.events import TrainingOptions
from libs.common.jobs import JobKind, JobState, QueueState, Step
from libs.common.pitch_requests import MethodName
from libs.common.training_options import TrainingSettings
from services.gateway.datasets.schemas import SPEAKERS, SpeakerOut
from services.gateway.jobs.tables import Job, JobLog
from services.gateway.paging import NextCursor
from services.gateway.text import Name

_ID = "job_01JD3Q0V6X9W4T2M8N5R7K1A3B"

PRIORITY = "Higher starts first; 70 and more is the high lane"
LONGEST_TRAINING_SECONDS = 7 * 24 * 3600


_RATES = {"rvc-v": (1e-4, 4e-4), "xtts-v": (5e-6, 5e-5)}
"""The usual learning rate of a family of networks, and above what a run often diverges."""


class Recovery(BaseModel):
    """What can be done about failures (F-093)."""

    retry_count: int = Field(
        description="Failures of the present step that were, or will be, tried again by themselves"
    )
    max_retries: int = Field(description="How often a step is tried again by itself")
    last_error: dict[str, Any] | None = Field(description="The last failure, as problem details")
    can_retry: bool = Field(description="POST …/retry is possible")
    suggested_actions: list[str] = Field(description="What a person can do about the last failure")


class JobOut(BaseModel):
    """One job."""

    id: str = Field(examples=[_ID])
    name: str = Field(examples=["Anna, warm"])
    kind: JobKind
    status: JobState
    phase: Step | None = Field(description="The step that it is at")
    queue_state: QueueState | None = Field(description="None once the job is over")
    progress: float = Field(ge=0, le=100, description="Percent of the whole job")
    current_step: int = Field(
        description="How many of `total_steps` are done: training steps, or recordings and texts of other work"
    )
    total_steps: int
    current_loss: float | None = Field(description="The last step's loss, which has no unit")
    losses: dict[str, float] = Field(description="The last step's losses by name", examples=[{"mel": 0.41}])
    eta_seconds: float | None = Field(description="Until the present step ends, as its worker estimates")
    attempt: int = Field(description="1, and one more with each retry that a person asks for")
    priority: int = Field(description=PRIORITY)
    preset: str = Field(examples=["lite"])
    options: dict[str, Any] = Field(description="What was asked for, with the defaults")
    dataset_id: str | None = Field(description="None for a kind of job that needs no dataset")
    dataset: str | None = Field(description="The dataset's slug")
    voice: str | None = Field(description="The slug of the voice that it makes, or speaks with")
    model_id: str | None = Field(description="That voice's id")
    owner_id: str
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    estimated_seconds: float | None = Field(description="A guess at the whole job's time, made when it was opened")
    estimated_cost: float | None = Field(description="The same at GPU_HOUR_PRICE, in the currency of that setting")
    error: dict[str, Any] | None = Field(description="Why the job failed, as problem details")
    summary: dict[str, Any] | None = Field(default=None, description="What the job made, in numbers")
    recovery: Recovery
    warnings: list[str] = Field(default=[], description="Options that are legal and unusual")
    version: int = Field(description="Grows with every change; the ETag is made from it")

    @classmethod
    def of(cls, job: Job, max_retries: int) -> JobOut:
        """The row as JSON has it."""
        trouble = job.error or job.last_error
        return cls(
            recovery=Recovery(
                retry_count=job.retry_count,
                max_retries=max_retries,
                last_error=job.last_error or job.error,
                can_retry=job.state in (JobState.failed, JobState.cancelled) and job.job_kind is not JobKind.conversion,
                suggested_actions=list((trouble or {}).get("suggested_actions", [])),
            ),
            warnings=_warnings(job),
            **{name: getattr(job, name) for name in cls.model_fields if name not in ("recovery", "warnings")},
        )


def _warnings(job: Job) -> list[str]:
    is_training = job.job_kind is JobKind.training
    return warnings_about(TrainingOptions.model_validate(job.options)) if is_training else []


def warnings_about(options: TrainingOptions) -> list[str]:
    """Legal values that are unusual for this family of networks (C-09)."""
    for family, (usual, most) in _RATES.items():
        if options.preset.startswith(family) and options.learning_rate is not None and options.learning_rate > most:
            return [
                f"learning_rate {options.learning_rate:g} is far above the usual {usual:g} of {options.preset}; "
                "the run may diverge"
            ]
    return []


class JobPage(BaseModel):
    items: Sequence[JobOut]
    next_cursor: NextCursor = None


class LogLine(BaseModel):
    """One line of a job's history (F-056)."""

    id: int
    timestamp: datetime
    level: str = Field(examples=["info"])
    kind: str = Field(description="`transition` of the job's state, `step`, or a worker's `message`")
    message: str
    metadata: dict[str, Any] = Field(description="The same for programs")

    @classmethod
    def of(cls, row: JobLog) -> LogLine:
        return cls(
            id=row.id, timestamp=row.at, level=row.level, kind=row.kind, message=row.message, metadata=row.details
        )


class LogPage(BaseModel):
    items: list[LogLine]
    next_cursor: str | None = Field(default=None, description="`cursor` of what comes later; null at the end")


Priority = Annotated[int, Field(ge=0, le=100, description=PRIORITY)]


class _About(BaseModel):
    """Which dataset: by id, or by slug under one of its customary names."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: Name | None = Field(default=None, description="Id or slug", examples=["dst_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    exp_name: Name | None = Field(default=None, description="Or its name or slug", examples=["test_model"])
    dataset_name: Name | None = Field(default=None, description="The same by another name")
    priority: Priority = 50

    @property
    def by_name(self) -> str | None:
        return self.exp_name or self.dataset_name


_PRESET = "Which network is trained; by default what the trainers' device can train"


class PreprocessRequest(_About):
    """Prepare a dataset for training."""

    preset: str | None = Field(default=None, description=_PRESET, examples=["lite"])
    f0_method: MethodName = "auto"


class OptionsIn(TrainingSettings):
    """What may be asked of a training run; what is left out is the preset's own value."""

    model_config = ConfigDict(extra="forbid")

    preset: str | None = Field(default=None, description="Counts where no `preset` stands beside `options`")
    train_seconds: float | None = Field(
        default=None, ge=1, le=LONGEST_TRAINING_SECONDS, description="Train for about this long, schedule included"
    )
    max_training_seconds: float = Field(
        default=7200.0,
        ge=1,
        le=LONGEST_TRAINING_SECONDS,
        description="A run that takes longer is ended; see best_on_timeout",
    )


class TrainingRequest(_About):
    """Train a voice from a dataset."""

    name: Name | None = Field(
        default=None, description="Of the voice; the dataset's if left out", examples=["Anna, warm"]
    )
    provider: str | None = Field(
        default=None, description="Who makes the voice, as GET /providers lists them; rvc unless a preset says other"
    )
    preset: str | None = Field(default=None, description=_PRESET, examples=["lite"])
    options: OptionsIn = OptionsIn()


class CancelledJob(JobOut):
    """The job after a cancel; `success` for clients that expect it (F-032)."""

    success: bool = True


class Stats(BaseModel):
    """Exact counts from the database (F-150)."""

    waiting: int
    active: int = Field(description="A worker is at it")
    delayed: int = Field(description="Failed, and tried again by themselves")
    completed: int
    failed: int
    cancelled: int
    total: int


class Folder(BaseModel):
    """One folder of the prepared dataset."""

    name: str = Field(examples=["0_gt_wavs"])
    files: int = Field(description="How many there are")
    bytes: int = Field(description="All of them together")
    missing: list[str] = Field(
        default=[], description="Files that the manifest names and that are not on disk; at most 20"
    )


class Artifacts(BaseModel):
    """What preprocessing made of a dataset, as its manifest says and the disk confirms."""

    dataset_id: str
    dataset: str = Field(description="Its slug")
    prepared: bool = Field(description="Every folder is whole")
    is_current: bool = Field(
        default=False, description="Made from the recordings that the dataset has now, with their speakers"
    )
    job_id: str | None = Field(default=None, description="The job whose result this is")
    prepared_at: datetime | None = None
    folders: list[Folder] = []
    missing: list[str] = Field(default=[], description="Names of folders that are absent, empty or incomplete")
    pieces: int | None = Field(default=None, description="Clips that training learns from")
    seconds: float | None = Field(default=None, description="All clips together")
    facts: dict[str, Any] = Field(default={}, description="What preparation found: rate, encoder, pitch method …")


class Validation(BaseModel):
    """Whether a dataset can be trained on, and what stands in the way."""

    valid: bool = Field(description="Uploaded speech suffices and every prepared folder is whole")
    can_train: bool = Field(description="A training job would be accepted; it prepares what is missing")
    dataset_id: str
    dataset: str = Field(description="Its slug")
    exp_name: str = Field(description="The same under its older name")
    recordings: int = Field(description="How many there are")
    seconds: float = Field(description="Of sound, all recordings together")
    speakers: list[SpeakerOut] = Field(default=[], description=SPEAKERS)
    needed_seconds: float = Field(description="Of sound, for this preset; where there are several speakers, of each")
    problems: list[dict[str, Any]] = Field(description="What stands in the way, as problem details")
    artifacts: Artifacts
