"""What does a voice look like over HTTP?"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.text import Name, Text
from services.gateway.voices.tables import Voice, VoiceStatus


class VoiceOut(BaseModel):
    """A voice model (F-061)."""

    id: str = Field(examples=["vox_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    slug: str = Field(description="Names the folder; never changes", examples=["anna-warm"])
    name: str = Field(examples=["Anna, warm"])
    description: str
    user_id: str
    status: VoiceStatus
    base_model: str = Field(description="The preset that it was trained with", examples=["lite"])
    training_job_id: str | None = Field(description="The job whose version is served")
    dataset_id: str | None
    path: str = Field(description="Below MODELS_ROOT", examples=["anna-warm/versions/job_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    sample_rate: int = Field(examples=[22050])
    weights_sha256: str
    index_sha256: str
    quality: dict[str, Any] = Field(description="What its evaluation measured")
    created_at: datetime
    updated_at: datetime
    version: int

    @classmethod
    def of(cls, row: Voice) -> VoiceOut:
        """The row as JSON has it."""
        return cls(**_values(row))


class VoiceDetail(VoiceOut):
    """A voice with its whole card: configuration, lineage, checksums, quality."""

    card: dict[str, Any]

    @classmethod
    def of(cls, row: Voice) -> VoiceDetail:
        """The row as JSON has it."""
        return cls(card=row.card or {}, **_values(row))


def _values(row: Voice) -> dict[str, Any]:
    return {
        "id": row.id,
        "slug": row.slug,
        "name": row.name,
        "description": row.description,
        "user_id": row.owner_id,
        "status": VoiceStatus(row.status),
        "base_model": row.preset,
        "training_job_id": row.job_id,
        "dataset_id": row.dataset_id,
        "path": row.path,
        "sample_rate": row.sample_rate,
        "weights_sha256": row.weights_sha256,
        "index_sha256": row.index_sha256,
        "quality": (row.card or {}).get("quality") or {},
        "created_at": row.created_at,
        "updated_at": row.updated_at,
        "version": row.version,
    }


class VoicePage(BaseModel):
    items: list[VoiceOut]
    next_cursor: str | None = Field(default=None, description="`cursor` of the next page; null on the last one")


class VoiceChange(BaseModel):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Anna, narrator"}]})

    name: Name | None = None
    description: Text | None = None
