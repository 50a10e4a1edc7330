"""What do jobs leave behind when they end? Attempts that nobody needs, and records in the broker: swept after a while.

Until then a failed or cancelled job can be retried where it stopped; afterwards its unfinished step begins anew.
"""

from __future__ import annotations

from sqlalchemy import select, update

from libs.common.jobs import ACTIVE
from libs.common.logs import get_logger
from services.gateway.database import utcnow
from services.gateway.datasets.tables import Dataset, DatasetStatus
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.one_by_one import one_by_one
from services.gateway.parts import Parts

log = get_logger("jobs.tidying")


async def sweep(parts: Parts) -> None:
    """Tidies up after jobs that ended longer ago than LEFTOVERS_LIFETIME, each once for each time that it ends."""

    async def job(job_id: str, experiment: str, dataset_id: str | None) -> None:
        await _tidy(parts, job_id, experiment, dataset_id)

    before = utcnow() - parts.settings.leftovers_lifetime
    ended = select(Job.id, Job.experiment, Job.dataset_id).where(
        Job.status.not_in(ACTIVE), Job.swept_at.is_(None), Job.finished_at < before
    )
    await one_by_one(parts.database, ended, Job.id, job)


async def _tidy(parts: Parts, job_id: str, experiment: str, dataset_id: str | None) -> None:
    """Raises Unavailable while the broker or ingest is away; then the next sweep does it."""
    bus = parts.bus
    async with parts.database.read() as session:
        dataset = await session.get(Dataset, dataset_id) if dataset_id is not None else None
        rows = await session.scalars(select(JobStep).where(JobStep.job_id == job_id))
        keep = {row.step: row.manifest_token for row in rows if row.manifest_token is not None}
    if dataset is not None and dataset.status == DatasetStatus.deleted.value and dataset.slug == experiment:
        # A worker that woke up late may have written into the folder of a dataset that was gone.
        await parts.ingest.call("DELETE", f"/datasets/{experiment}")
    else:
        older_than = parts.settings.leftovers_lifetime.total_seconds()
        await parts.ingest.call(
            "POST",
            f"/experiments/{experiment}/jobs/{job_id}/sweep",
            json={"keep": keep, "older_than_seconds": older_than},
        )
    await bus.forget_job(job_id)
    async with parts.database.write() as session:
        over = (Job.id == job_id, Job.status.not_in(ACTIVE))
        await session.execute(update(Job).where(*over).values(swept_at=utcnow()))
    log.info("job.tidied", job_id=job_id)
