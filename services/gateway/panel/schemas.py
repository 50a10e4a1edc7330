"""What does the training tab send and read? Names are those of the customer's document (000_training_feature)."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from libs.common.jobs import JobState
from services.gateway.datasets.catalogue import Summary
from services.gateway.jobs.tables import Job
from services.gateway.routing import PREFIX
from services.gateway.text import Name

# The panel has three colours; what failed or was cancelled is said beside them.
_STATUS: dict[JobState, Literal["pending", "training", "completed", "failed", "cancelled"]] = {
    JobState.completed: "completed",
    JobState.failed: "failed",
    JobState.cancelled: "cancelled",
}


class PanelUpload(BaseModel):
    """A clip that was kept, with its text."""

    success: bool = True
    message: str
    dataset_name: str = Field(description="The dataset's slug", examples=["linda"])
    filename: str = Field(description="As it was sent")
    wav: str = Field(description="The sound as 22,050 Hz mono WAV, within the dataset", examples=["wavs/3f5a….wav"])
    transcript: str
    sample_id: str
    duration_seconds: float


class PanelStart(BaseModel):
    """Fine-tune a text-to-speech voice from a dataset."""

    model_config = ConfigDict(extra="forbid")

    dataset_name: Name = Field(description="Name, slug or id of a dataset", examples=["linda"])
    epochs: int | None = Field(default=None, ge=1, le=1000, description="Passes over all clips", examples=[100])
    batch_size: int | None = Field(default=None, ge=1, le=64, description="Clips at once", examples=[2])
    language: str = Field(default="en", max_length=20, description="Of the clips", examples=["en"])


class PanelStarted(BaseModel):
    """The job that was queued."""

    success: bool = True
    message: str
    job_id: str
    dataset_name: str
    status: str


class PanelDataset(BaseModel):
    name: str = Field(description="The dataset's slug")
    title: str = Field(description="What its owner calls it")
    audio_count: int = Field(description="Recordings that are ready")
    created_at: datetime


class PanelDatasets(BaseModel):
    datasets: list[PanelDataset]

    @classmethod
    def of(cls, found: list[Summary]) -> PanelDatasets:
        """All of them as the panel shows them."""
        return cls(
            datasets=[
                PanelDataset(
                    name=each.dataset.slug,
                    title=each.dataset.name,
                    audio_count=each.item_count,
                    created_at=each.dataset.created_at,
                )
                for each in found
            ]
        )


class PanelJob(BaseModel):
    job_id: str
    dataset_name: str
    status: Literal["pending", "training", "completed", "failed", "cancelled"]
    model_available: bool = Field(description="A voice was published by it")
    model: str | None = Field(description="The voice's slug")
    log_file: str = Field(description="Where its log is read")
    progress: int = Field(description="0-100")
    created_at: datetime

    @classmethod
    def of(cls, job: Job) -> PanelJob:
        """A training job as the panel shows it."""
        state = JobState(job.status)
        waiting: Literal["pending", "training"] = "training" if job.started_at is not None else "pending"
        return cls(
            job_id=job.id,
            dataset_name=job.dataset or "",
            status=_STATUS.get(state, waiting),
            model_available=state is JobState.completed,
            model=job.voice if state is JobState.completed else None,
            log_file=f"{PREFIX}/training/jobs/{job.id}/logs",
            progress=int(job.progress or 0),
            created_at=job.created_at,
        )


class PanelJobs(BaseModel):
    jobs: list[PanelJob]
