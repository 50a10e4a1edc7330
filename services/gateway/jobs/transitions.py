"""How does a job change its state? In one place: one audit row, one line of its log, one word to each listener."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from libs.common import metrics
from libs.common.events import JobCancelled, JobChanged, JobCompleted, JobEvent, JobFailed, JobQueued, JobStarted
from libs.common.jobs import ACTIVE, MAKES_VOICE, JobState, check_transition
from services.gateway.audit import audit
from services.gateway.jobs import outbox
from services.gateway.jobs.history import note
from services.gateway.jobs.tables import Job
from services.gateway.voices import registry

_FACTS: dict[JobState, type[JobEvent]] = {
    JobState.queued: JobQueued,
    JobState.running: JobStarted,
    JobState.completed: JobCompleted,
    JobState.failed: JobFailed,
    JobState.cancelled: JobCancelled,
}


async def end(
    session: AsyncSession,
    job: Job,
    to: JobState,
    now: datetime,
    *,
    actor: str = audit.SYSTEM,
    problem: dict[str, Any] | None = None,
) -> None:
    """To an end without a result; a voice that waited for its first version shows it."""
    move(session, job, to, now, actor=actor, problem=problem)
    if job.voice is not None and job.job_kind in MAKES_VOICE:
        await registry.give_up(session, slug=job.voice)


def move(
    session: AsyncSession,
    job: Job,
    to: JobState,
    now: datetime,
    *,
    actor: str = audit.SYSTEM,
    problem: dict[str, Any] | None = None,
) -> None:
    """The one place where a job's state changes: one audit row, one line in its log, one word to each listener."""
    was = job.state
    check_transition(was, to)
    job.status = to.value
    if to not in ACTIVE:
        job.queue_state = None
        job.eta_seconds = None
        job.finished_at = now
        job.error = problem
    level = "error" if to is JobState.failed else "info"
    details: dict[str, Any] = {"from": was.value, "to": to.value, "attempt": job.attempt, "phase": job.phase}
    said = f"{was} → {to}" + (f": {problem.get('detail', '')}" if problem else "")
    note(session, job, now, said, details | ({"problem": problem} if problem else {}), kind="transition", level=level)
    audit.record(session, actor, f"job.{to}", job.id, **details)
    if to not in ACTIVE:
        _count(session, job, now, problem)
    tell(session, job, now)
    fact = _FACTS[to](job_id=job.id, owner_id=job.owner_id, problem=problem)
    outbox.fact(session, fact, job.version, now)


def _count(session: AsyncSession, job: Job, now: datetime, problem: dict[str, Any] | None) -> None:
    """Into the metrics, once the transaction has held."""
    ended = metrics.JOB_SECONDS.labels(job.kind, job.status)
    failed = metrics.JOB_FAILURES.labels(job.kind, metrics.code_label((problem or {}).get("code")))
    seconds = max((now - (job.queued_at or job.created_at)).total_seconds(), 0.0)

    def count(_: Session) -> None:
        ended.observe(seconds)
        if problem is not None:
            failed.inc()

    event.listen(session.sync_session, "after_commit", count, once=True)


def tell(session: AsyncSession, job: Job, now: datetime) -> None:
    """A new version of the job, for its feed."""
    job.version += 1
    outbox.state(
        session,
        JobChanged(
            job_id=job.id,
            state=job.state,
            phase=job.step,
            queue_state=job.queue,
            progress=job.progress,
            attempt=job.attempt,
            version=job.version,
            problem=job.error,
            cancel_requested=job.cancel_requested_at is not None,
        ),
        now,
    )
