"""What happened to a job? An append-only log: transitions (the audit trail), steps, and workers' messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from services.gateway.jobs.tables import Job, JobLog


def note(
    session: AsyncSession,
    job: Job,
    at: datetime,
    message: str,
    details: dict[str, Any] | None = None,
    *,
    kind: str = "step",
    level: str = "info",
) -> None:
    """Adds a line to the job's history in the caller's transaction."""
    session.add(JobLog(job_id=job.id, at=at, kind=kind, level=level, message=message, details=details or {}))


async def page(session: AsyncSession, job_id: str, after: int, limit: int) -> list[JobLog]:
    """At most `limit` lines with a number above `after`, oldest first."""
    query = select(JobLog).where(JobLog.job_id == job_id, JobLog.id > after).order_by(JobLog.id).limit(limit)
    return list((await session.scalars(query)).all())
