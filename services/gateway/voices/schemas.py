"""What does a voice look like over HTTP?"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.gateway.paging import NextCursor
from services.gateway.text import Name, Text
from services.gateway.voices.tables import Voice, VoiceStatus


class VoiceOut(BaseModel):
    """A voice model (F-061)."""

    id: str = Field(examples=["vox_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    slug: str = Field(description="Names the folder; never changes", examples=["anna-warm"])
    name: str = Field(examples=["Anna, warm"])
    description: str
    user_id: str = Field(description="The account that it belongs to")
    status: VoiceStatus
    base_model: str = Field(description="The preset that it was trained with", examples=["lite"])
    training_job_id: str | None = Field(description="The job whose version is served")
    dataset_id: str | None = Field(description="What it was trained on; null for one that was not trained here")
    path: str = Field(description="Below MODELS_ROOT", examples=["anna-warm/versions/job_01JD3Q0V6X9W4T2M8N5R7K1A3B"])
    sample_rate: int = Field(description="Hz, of the sound that it makes", examples=[22050])
    weights_sha256: str = Field(description="Of the file of the version that is served; empty before the first")
    index_sha256: str = Field(description="Likewise of its index; empty without one")
    quality: dict[str, Any] = Field(description="What its evaluation measured")
    created_at: datetime
    updated_at: datetime
    version: int = Field(description="Grows with every change; the ETag is made from it")

    @classmethod
    def of(cls, row: Voice) -> VoiceOut:
        """The row as JSON has it."""
        return cls(**_values(row))


class VoiceDetail(VoiceOut):
    """A voice with its whole card: configuration, lineage, checksums, quality."""

    card: dict[str, Any] = Field(description="Empty before the first version")

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
    next_cursor: NextCursor = None


class VoiceChange(BaseModel):
    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"name": "Anna, narrator"}]})

    name: Name | None = None
    description: Text | None = None


class VoiceForm(BaseModel):
    """The plain fields beside the files from which a voice is made."""

    name: Name = Field(description="Name of the voice; that of a voice of yours makes a new version of it")
    encoder: Literal["auto", "hubert", "builtin"] = Field(
        default="auto",
        description="Which content encoder the voice was trained with, when its file does not say: "
        "`hubert` is RVC's (HuBERT or ContentVec) and what `auto` takes a foreign file for, `builtin` is our own",
    )
    speaker: int | None = Field(
        default=None, ge=0, le=10_000, description="Of a training checkpoint: keep this speaker alone"
    )
    rights: Annotated[Text, Field(max_length=2000)] = Field(
        default="", description="What you say about your right to use this voice; kept in its card"
    )


class MergeRequest(BaseModel):
    """Mix two voices of the same network, weight by weight."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"first": "anna", "second": "ben", "share": 0.5, "name": "Both"}]},
    )

    first: Name = Field(description="Id, slug or name of one of your voices")
    second: Name = Field(description="The other one")
    share: float = Field(default=0.5, ge=0, le=1, description="How much of the first voice; the rest is the second's")
    name: Name


class ConvertRequest(BaseModel):
    """The form that a voice's file shall have."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"form": "fp16"}]})

    form: Literal["fp16", "fp32", "safetensors"] = Field(description="Half or full precision, or safetensors")


class ModelFacts(BaseModel):
    """What is in a voice's file; null where the file does not say."""

    kind: str = Field(description="`voice`, or `safetensors`", examples=["voice"])
    network: str = Field(description="`rvc`, `lite` or `xtts`", examples=["rvc"])
    version: str | None = Field(description="RVC's version; the preset of a voice that speaks", examples=["v2"])
    sample_rate: int | None = Field(description="Hz", examples=[40000])
    f0: bool | None = Field(description="Whether it needs the pitch")
    speakers: int | None = Field(description="How many it can speak as")
    content_width: int | None = Field(description="Values per content frame", examples=[768])
    precision: str = Field(description="Of its weights", examples=["fp16"])
    parameters: int = Field(description="How many numbers its network has")
    training: str | None = Field(description="How far it was trained, in its file's words", examples=["20epoch"])
    extra_keys: list[str] = Field(default=[], description="What else its file holds, by name; nothing reads it")
    content_encoder: dict[str, Any] | None = Field(default=None, description="As its card has it; null is unknown")
    size_bytes: int = Field(description="Of its file")
    sha256: str = Field(description="Of its file")
    index_rows: int | None = Field(default=None, description="Vectors in its index; null without one")
    language: str | None = Field(default=None, description="That it was trained in; null for a voice that converts")
    languages: list[str] = Field(default=[], description="That it has tokens for; empty for a voice that converts")
    licence: str | None = Field(default=None, description="Of the base model, where it has one of its own")


class VoiceCheck(BaseModel):
    """What trying a voice showed."""

    valid: bool = Field(
        description="Its files are those of its card; where it can be tried here, it loads and makes sound"
    )
    usable: bool = Field(description="This installation can convert or speak with it")
    problems: list[dict[str, Any]] = Field(description="What stands in the way, as problem details")
    peak: float | None = Field(default=None, description="Of the test sound, 0-1")
    level_db: float | None = Field(default=None, description="Of the test sound, dB below full scale")
