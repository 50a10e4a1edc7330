"""The audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Index, String
from sqlalchemy.orm import Mapped, mapped_column

from services.gateway.database import Base, new_id, utcnow


class AuditEntry(Base):
    """One thing that happened. Rows are only ever added; triggers refuse changes.

    There are no foreign keys: an entry outlives what it speaks about.
    """

    __tablename__ = "audit"
    __table_args__ = (
        Index("ix_audit_object_id_id", "object_id", "id"),
        Index("ix_audit_actor_id_id", "actor_id", "id"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("aud"))
    at: Mapped[datetime] = mapped_column(default=utcnow)
    actor_id: Mapped[str] = mapped_column(String(40))
    action: Mapped[str] = mapped_column(String(60))
    object_kind: Mapped[str] = mapped_column(String(30))
    object_id: Mapped[str] = mapped_column(String(64))
    request_id: Mapped[str] = mapped_column(String(80), default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
