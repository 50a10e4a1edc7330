"""What does ingest's HTTP look like? Only the gateway sees it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class _FromDomain(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class AcceptedFile(_FromDomain):
    """A file that waits, examined, for a dataset or a conversion."""

    field: str = Field(description="Name of the form's part")
    name: str = Field(description="What the client called it: text for people")
    upload_id: str
    sha256: str
    extension: str = Field(description="By content, without a dot", examples=["mp3"])
    mime_type: str
    size_bytes: int
    duration_seconds: float = Field(description="Counted from decoded samples")
    report: dict[str, Any]


class RefusedFile(_FromDomain):
    """A file that was not accepted; nothing of it is kept."""

    field: str
    name: str
    problem: dict[str, Any] = Field(description="RFC 9457 problem details")


class UploadAnswer(_FromDomain):
    """What one multipart request held."""

    fields: dict[str, str]
    files: list[AcceptedFile | RefusedFile]


class ClaimRequest(BaseModel):
    """Staged uploads that shall belong to a dataset."""

    upload_ids: list[str] = Field(min_length=1, max_length=10_000)


class ClaimedFile(_FromDomain):
    upload_id: str
    sha256: str
    extension: str


class ClaimAnswer(_FromDomain):
    files: list[ClaimedFile]


class SweepRequest(BaseModel):
    """What of a job's steps is in use: the token of each finished step's manifest."""

    keep: dict[str, int] = Field(default={}, examples=[{"preprocess": 1}])
    older_than_seconds: float = Field(default=0.0, ge=0, description="What has changed since then stays")


class SweepAnswer(_FromDomain):
    removed: list[str] = Field(description="Folders and links, relative to the experiment")
