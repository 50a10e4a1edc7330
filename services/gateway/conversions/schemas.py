"""What do the results of a job that makes sounds look like to its owner?"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field

from libs.common.jobs import JobState


class FileState(StrEnum):
    """`converted` a recording, `said` a text; `waiting` while the job goes on; `left` when it ended before this one's
    turn; `expired` when the job completed and its sounds are not kept any more."""

    waiting = "waiting"
    converted = "converted"
    said = "said"
    failed = "failed"
    left = "left"
    expired = "expired"


class FileResult(BaseModel):
    """What became of one recording or text."""

    number: int = Field(description="In the order in which they are worked on; the address of its sound")
    name: str = Field(description="What its owner calls the recording or text", examples=["interview.mp3"])
    state: FileState
    file: str | None = Field(default=None, description="Its name in the result", examples=["interview.wav"])
    seconds: float | None = Field(default=None, description="Length of the sound")
    sample_rate: int | None = Field(default=None, description="Of the sound, Hz")
    size_bytes: int | None = Field(default=None, description="Of its file")
    compute_seconds: float | None = Field(default=None, description="How long it took to make")
    voice_version: str | None = Field(default=None, description="The job that made the voice's version that was used")
    problem: dict[str, Any] | None = Field(default=None, description="Why it failed: problem details")


class ConversionResults(BaseModel):
    """The recordings or texts of a job, one by one."""

    job_id: str
    status: JobState
    is_partial: bool = Field(description="The job completed and some of its inputs failed")
    expires_at: datetime | None = Field(description="Until then the sounds are kept; None while the job goes on")
    files: list[FileResult]
