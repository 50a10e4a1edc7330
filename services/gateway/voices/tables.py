"""Voices: what a training job made, and where it lies."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.gateway.database import Base, new_id, utcnow


class VoiceStatus(StrEnum):
    """F-061. A voice is `processing` until its first version is published, and stays `ready` while it is retrained."""

    processing = "processing"
    ready = "ready"
    failed = "failed"
    deleting = "deleting"
    deleted = "deleted"


GONE = (VoiceStatus.deleting.value, VoiceStatus.deleted.value)


class Voice(Base):
    """A voice model. `slug` names its folder below MODELS_ROOT; `path` is relative to it (F-072)."""

    __tablename__ = "voices"
    __table_args__ = (Index("ix_voices_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("vox"))
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    description: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(20), default=VoiceStatus.processing.value)
    dataset_id: Mapped[str | None] = mapped_column(ForeignKey("datasets.id", ondelete="SET NULL"))
    # The job whose version is served; no foreign key, because a voice outlives the record of its training.
    job_id: Mapped[str | None] = mapped_column(String(40))
    preset: Mapped[str] = mapped_column(String(40), default="")
    path: Mapped[str] = mapped_column(String(300), default="")
    weights_sha256: Mapped[str] = mapped_column(String(64), default="")
    index_sha256: Mapped[str] = mapped_column(String(64), default="")
    sample_rate: Mapped[int] = mapped_column(default=0)
    card: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)
    version: Mapped[int] = mapped_column(default=1)
