"""When do the files of jobs that make sounds go? What was sent, at their end; what was made, after a while."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import delete, select

from libs.common.errors import Conflict, PlatformError
from libs.common.jobs import MAKES_SOUNDS, JobKind
from libs.common.logs import get_logger
from libs.common.paths import WITHOUT_DATASET
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.conversions.results import expires_at, step_of
from services.gateway.database import utcnow
from services.gateway.jobs import outbox, reading
from services.gateway.jobs.tables import Job
from services.gateway.one_by_one import each
from services.gateway.parts import Parts
from services.gateway.text import is_key

log = get_logger("gateway.conversions")


async def remove(parts: Parts, caller: Caller, kind: JobKind, job_id: str) -> None:
    """Removes a job that is over, with its results.

    Raises NotFound, and Conflict while it goes on or the broker has not been told everything: what is sent after the
    removal would leave its records there for ever, and a worker might not hear that it is to stop.
    """
    async with parts.database.write() as session:
        job = await reading.find(session, caller, kind, job_id, lock=True)
        if not job.is_over:
            raise Conflict(f"the job is {job.status}", actions=("Cancel it first.",))
        if await outbox.unsent(session, job.id):
            raise Conflict(
                f"the job is {job.status}, and the message broker is still being told",
                retryable=True,
                actions=("Try again in a moment; while the message broker is away, jobs cannot be deleted.",),
            )
        await session.execute(delete(Job).where(Job.id == job.id))
        audit.record(session, caller.id, "job.deleted", job.id, kind="job")
    # The job is out of sight: what fails here is not told to its owner.
    try:
        await parts.ingest.call("DELETE", f"/jobs/{job_id}")
    except PlatformError as error:  # the sweeper does it
        log.warning("conversion.files_stay", job_id=job_id, detail=error.detail)
    try:
        await parts.bus.forget_job(job_id)
    except PlatformError as error:  # the next rebuild of the projection removes what people see
        log.warning("conversion.records_stay", job_id=job_id, detail=error.detail)


async def sweep(parts: Parts) -> None:
    """Removes recordings of jobs that are over, results whose time is up, and folders that no job stands for."""
    sent = await asyncio.to_thread(_folders, parts.paths.sent_with_jobs)
    steps = parts.paths.experiment(WITHOUT_DATASET).steps
    made: dict[str, float] = {}
    for kind in MAKES_SOUNDS:
        made |= await asyncio.to_thread(_folders, steps, step_of(kind).value)
    jobs = await _jobs(parts, {**sent, **made})
    unclaimed = time.time() - parts.settings.staged_lifetime.total_seconds()

    async def recordings(job_id: str, changed_at: float) -> None:
        job = jobs.get(job_id)
        if job.is_over if job is not None else changed_at < unclaimed:
            await parts.ingest.call("DELETE", f"/jobs/{job_id}/files")
            log.info("conversion.recordings_removed", job_id=job_id)

    async def results(job_id: str, changed_at: float) -> None:
        job = jobs.get(job_id)
        until = expires_at(job, parts.settings.conversion_results_lifetime) if job is not None else None
        if (until is not None and until < utcnow()) if job is not None else changed_at < unclaimed:
            await parts.ingest.call("DELETE", f"/jobs/{job_id}")
            log.info("conversion.results_removed", job_id=job_id)

    await each(sent.items(), recordings)
    await each(made.items(), results)


def _folders(root: Path, having: str | None = None) -> dict[str, float]:
    """The names of jobs that have a folder in `root` (with a folder `having` in it), and when each last changed."""
    try:
        entries = [entry for entry in root.iterdir() if is_key(entry.name) and entry.is_dir()]
    except FileNotFoundError:
        return {}
    found = {}
    for entry in entries:
        if having is None or (entry / having).is_dir():
            try:
                found[entry.name] = entry.stat().st_mtime
            except FileNotFoundError:
                continue
    return found


async def _jobs(parts: Parts, ids: Iterable[str]) -> dict[str, Job]:
    wanted = list(ids)
    found: dict[str, Job] = {}
    async with parts.database.read() as session:
        for start in range(0, len(wanted), 500):
            rows = await session.scalars(select(Job).where(Job.id.in_(wanted[start : start + 500])))
            found |= {job.id: job for job in rows}
    return found
