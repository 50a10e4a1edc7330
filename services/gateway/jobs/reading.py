"""Which jobs may somebody see, and how many are there?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from libs.common.errors import Forbidden, NotFound
from libs.common.jobs import ACTIVE, JobKind, JobState, QueueState, Step
from services.gateway.accounts.current import Caller
from services.gateway.database import Database
from services.gateway.datasets.tables import Dataset
from services.gateway.jobs.schemas import Stats
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.text import is_key

Status = Literal["active", "pending", "queued", "running", "completed", "failed", "cancelled"]
# The list of recordings can be long, and is not shown.
_SHOWN = select(Job).where(Job.id == bindparam("job_id"), Job.kind == bindparam("kind")).options(defer(Job.inputs))


async def find(session: AsyncSession, caller: Caller, kind: JobKind, job_id: str, *, lock: bool = False) -> Job:
    """One job, locked for a change when asked; raises NotFound for a stranger's."""
    job = None
    if is_key(job_id):
        query = select(Job).where(Job.id == job_id, Job.kind == kind.value, caller.sees(Job.owner_id))
        job = await session.scalar(query.with_for_update() if lock else query)
    return _found(job, kind, job_id)


async def opened_before(session: AsyncSession, caller: Caller, job_id: str) -> Job | None:
    """The job that a request with the same Idempotency-Key opened before it was cut off."""
    job = await session.get(Job, job_id)
    return job if job is not None and job.owner_id == caller.id else None


async def look_up(database: Database, caller: Caller, kind: JobKind, job_id: str) -> Job:
    """One job to show, without its recordings; raises NotFound for a stranger's."""
    job = await database.look_up(_SHOWN, job_id=job_id, kind=kind.value) if is_key(job_id) else None
    return _found(job if job is not None and caller.may_see(job.owner_id) else None, kind, job_id)


def _found(job: Job | None, kind: JobKind, job_id: str) -> Job:
    if job is None:
        actions = (f"List yours: GET /api/v1/{kind.address}/jobs.",)
        raise NotFound(f"there is no {kind} job {job_id[:80]!r}", actions=actions)
    return job


async def listing(
    session: AsyncSession,
    caller: Caller,
    kind: JobKind,
    *,
    status: Status | None,
    q: str | None,
    user_id: str | None,
    dataset_id: str | None,
    before: str | None,
    count: int,
) -> Sequence[Job]:
    """At most `count` jobs, newest first; `q` is looked for in name, dataset, voice and id."""
    if user_id is not None and not caller.may_see(user_id):
        raise Forbidden("only administrators may list the jobs of others")
    query = select(Job).where(Job.kind == kind.value, caller.sees(Job.owner_id)).order_by(Job.id.desc()).limit(count)
    if status == "active":
        query = query.where(Job.status.in_([state.value for state in ACTIVE]))
    elif status is not None:
        query = query.where(Job.status == status)
    if q:
        query = query.where(or_(*(c.icontains(q, autoescape=True) for c in (Job.name, Job.dataset, Job.voice, Job.id))))
    if user_id is not None:
        query = query.where(Job.owner_id == user_id)
    if dataset_id is not None:
        query = query.where(or_(Job.dataset_id == dataset_id, Job.dataset == dataset_id))
    if before is not None:
        query = query.where(Job.id < before)
    return (await session.scalars(query)).all()


async def last_prepared(session: AsyncSession, dataset: Dataset) -> tuple[Job, JobStep] | None:
    """The newest finished preprocessing step of a dataset, and its job."""
    query = (
        select(Job, JobStep)
        .join(JobStep, JobStep.job_id == Job.id)
        .where(Job.dataset_id == dataset.id, JobStep.step == Step.preprocess.value, JobStep.manifest_path.is_not(None))
        .order_by(JobStep.finished_at.desc())
        .limit(1)
    )
    row = (await session.execute(query)).first()
    return (row[0], row[1]) if row is not None else None


async def statistics(session: AsyncSession, caller: Caller | None, kind: JobKind | None = None) -> Stats:
    """Counts of the caller's jobs; of everybody's for an administrator or for None (F-150)."""
    query = select(Job.status, Job.queue_state, func.count()).group_by(Job.status, Job.queue_state)
    if caller is not None:
        query = query.where(caller.sees(Job.owner_id))
    if kind is not None:
        query = query.where(Job.kind == kind.value)
    by_state: dict[str, int] = {}
    by_queue: dict[str, int] = {}
    for status, queue_state, number in (await session.execute(query)).all():
        by_state[status] = by_state.get(status, 0) + number
        if status in ACTIVE:
            by_queue[queue_state or QueueState.waiting] = by_queue.get(queue_state or QueueState.waiting, 0) + number
    return Stats(
        waiting=by_queue.get(QueueState.waiting, 0),
        active=by_queue.get(QueueState.active, 0),
        delayed=by_queue.get(QueueState.delayed, 0),
        completed=by_state.get(JobState.completed, 0),
        failed=by_state.get(JobState.failed, 0),
        cancelled=by_state.get(JobState.cancelled, 0),
        total=sum(by_state.values()),
    )
