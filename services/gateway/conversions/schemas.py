"""What do the results of a conversion job look like to its owner?"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from libs.common.jobs import JobState


class FileState(StrEnum):
    """`waiting` while the job goes on; `left` when it ended before this recording's turn; `expired` when the job
    completed and its sounds are not kept any more."""

    waiting = "waiting"
    converted = "converted"
    failed = "failed"
    left = "left"
    expired = "expired"


class FileResult(BaseModel):
    """What became of one recording."""

    number: int = Field(description="In the order in which they are converted; the address of its sound")
    name: str = Field(description="What its owner calls the recording", examples=["interview.mp3"])
    state: FileState
    file: str | None = Field(default=None, description="Its name in the result", examples=["interview.wav"])
    seconds: float | None = Field(default=None, description="Length of the converted sound")
    sample_rate: int | None = Field(default=None, description="Of the converted sound, Hz")
    size_bytes: int | None = Field(default=None, description="Of its file")
    compute_seconds: float | None = Field(default=None, description="How long the conversion took")
    voice_version: str | None = Field(default=None, description="The job that made the version that converted it")
    problem: dict[str, Any] | None = Field(default=None, description="Why it failed: problem details")


class ConversionResults(BaseModel):
    """The recordings of a job, one by one."""

    job_id: str
    status: JobState
    is_partial: bool = Field(description="The job completed and some of its recordings failed")
    expires_at: datetime | None = Field(description="Until then the sounds are kept; None while the job goes on")
    files: list[FileResult]
