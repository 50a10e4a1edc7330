"""Datasets and the samples (recordings) in them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.gateway.database import Base, new_id, utcnow

NAME_LENGTH = 200


class DatasetStatus(StrEnum):
    """F-060. `deleting` is between the request and the removal of the files; `deleted` keeps the slug taken.

    `processing` and `failed` are in no row: they are what its jobs say of a dataset that is `active`.
    """

    active = "active"
    processing = "processing"
    failed = "failed"
    deleting = "deleting"
    deleted = "deleted"


GONE = (DatasetStatus.deleting.value, DatasetStatus.deleted.value)


class SampleStatus(StrEnum):
    """`staged`: the row exists, the file waits in ingest's staging area; `ready`: the file is in its dataset."""

    staged = "staged"
    ready = "ready"
    deleting = "deleting"


class Dataset(Base):
    """Recordings of one or several speakers. `slug` names its folder and never changes; `name` is free text."""

    __tablename__ = "datasets"
    __table_args__ = (Index("ix_datasets_owner_id_id", "owner_id", "id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("dst"))
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    slug: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(NAME_LENGTH))
    description: Mapped[str] = mapped_column(Text, default="")
    status: Mapped[str] = mapped_column(String(20), default=DatasetStatus.active.value)
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)
    version: Mapped[int] = mapped_column(default=1)


class Sample(Base):
    """One recording of a dataset, by content: the same file twice is one sample."""

    __tablename__ = "samples"
    __table_args__ = (
        UniqueConstraint("dataset_id", "sha256"),
        Index("ix_samples_owner_id_id", "owner_id", "id"),
        Index("ix_samples_status_created_at", "status", "created_at"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("smp"))
    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"))
    owner_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    extension: Mapped[str] = mapped_column(String(10))
    original_name: Mapped[str] = mapped_column(String(255))
    mime_type: Mapped[str] = mapped_column(String(100))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    duration_seconds: Mapped[float]
    transcript: Mapped[str] = mapped_column(Text, default="")
    transcript_by_machine: Mapped[bool] = mapped_column(default=False, server_default=false())
    speaker_id: Mapped[int] = mapped_column(default=0, server_default="0")
    status: Mapped[str] = mapped_column(String(20), default=SampleStatus.staged.value)
    upload_id: Mapped[str | None] = mapped_column(String(64))
    report: Mapped[dict[str, Any]]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    updated_at: Mapped[datetime] = mapped_column(default=utcnow)
    version: Mapped[int] = mapped_column(default=1)

    dataset: Mapped[Dataset] = relationship(lazy="raise")
