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
from services.gateway.jobs.tables import Job, JobLog
from services.gateway.text import Name

_ID = "job_01JD3Q0V6X9W4T2M8N5R7K1A3B"

LONGEST_TRAINING_SECONDS = 7 * 24 * 3600


class Recovery(BaseModel):
    """What can be done about failures (F-093)."""

    retry_count: int = Field(
        description="Failures of the present step that were, or will be, tried again by themselves"
    )
    max_retries: int
    last_error: dict[str, Any] | None
    can_retry: bool = Field(description="POST …/retry is possible")
    suggested_actions: list[str]


class JobOut(BaseModel):
    """One job."""

    id: str = Field(examples=[_ID])
    name: str = Field(examples=["Anna, warm"])
    kind: JobKind
    status: JobState
    phase: Step | None = Field(description="The step that it is at")
    queue_state: QueueState | None = Field(description="None once the job is over")
    progress: float = Field(ge=0, le=100, description="Percent of the whole job")
    current_step: int
    total_steps: int
    current_loss: float | None
    losses: dict[str, float]
    eta_seconds: float | None
    attempt: int
    priority: int
    preset: str
    options: dict[str, Any]
    dataset_id: str | None = Field(description="None for a kind of job that needs no dataset")
    dataset: str | None
    voice: str | None
    model_id: str | None
    owner_id: str
    created_at: datetime
    queued_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    cancel_requested_at: datetime | None
    estimated_seconds: float | None
    estimated_cost: float | None
    error: dict[str, Any] | None
    summary: dict[str, Any] | None = Field(default=None, description="What the job made, in numbers")
    recovery: Recovery
    warnings: list[str] = []
    version: int

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
    if options.learning_rate is not None and options.preset.startswith("rvc-v") and options.learning_rate > 4e-4:
        return [
            f"learning_rate {options.learning_rate:g} is far above the usual 0.0001 of {options.preset}; "
            "the run may diverge"
        ]
    return []


class JobPage(BaseModel):
    items: Sequence[JobOut]
    next_cursor: str | None = None


class LogLine(BaseModel):
    """One line of a job's history (F-056)."""

    id: int
    timestamp: datetime
    level: str
    kind: str
    message: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, row: JobLog) -> LogLine:
        return cls(
            id=row.id, timestamp=row.at, level=row.level, kind=row.kind, message=row.message, metadata=row.details
        )


class LogPage(BaseModel):
    items: list[LogLine]
    next_cursor: str | None = None


Priority = Annotated[int, Field(ge=0, le=100, description="Higher starts first; 70 and more is the high lane")]


class _About(BaseModel):
    """Which dataset: by id, or by slug under one of its customary names."""

    model_config = ConfigDict(extra="forbid")

    dataset_id: Name | None = Field(default=None, examples=["dst_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    exp_name: Name | None = Field(default=None, examples=["test_model"])
    dataset_name: Name | None = None
    priority: Priority = 50

    @property
    def by_name(self) -> str | None:
        return self.exp_name or self.dataset_name


class PreprocessRequest(_About):
    """Prepare a dataset for training."""

    preset: str | None = Field(default=None, examples=["lite"])
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

    name: Name | None = Field(default=None, examples=["Anna, warm"])
    preset: str | None = Field(default=None, examples=["lite"])
    options: OptionsIn = OptionsIn()


class CancelledJob(JobOut):
    """The job after a cancel; `success` for clients that expect it (F-032)."""

    success: bool = True


class Stats(BaseModel):
    """Exact counts from the database (F-150)."""

    waiting: int
    active: int
    delayed: int
    completed: int
    failed: int
    cancelled: int
    total: int


class Folder(BaseModel):
    """One folder of the prepared dataset."""

    name: str = Field(examples=["0_gt_wavs"])
    files: int
    bytes: int
    missing: list[str] = Field(
        default=[], description="Files that the manifest names and that are not on disk; at most 20"
    )


class Artifacts(BaseModel):
    """What preprocessing made of a dataset, as its manifest says and the disk confirms."""

    dataset_id: str
    dataset: str
    prepared: bool
    is_current: bool = Field(default=False, description="Made from the recordings that the dataset has now")
    job_id: str | None = Field(default=None, description="The job whose result this is")
    prepared_at: datetime | None = None
    folders: list[Folder] = []
    missing: list[str] = Field(default=[], description="Names of folders that are absent, empty or incomplete")
    pieces: int | None = None
    seconds: float | None = None
    facts: dict[str, Any] = {}


class Validation(BaseModel):
    """Whether a dataset can be trained on, and what stands in the way."""

    valid: bool = Field(description="Uploaded speech suffices and every prepared folder is whole")
    can_train: bool = Field(description="A training job would be accepted; it prepares what is missing")
    dataset_id: str
    dataset: str
    exp_name: str
    recordings: int
    seconds: float
    needed_seconds: float
    problems: list[dict[str, Any]]
    artifacts: Artifacts
