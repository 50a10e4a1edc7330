"""How does a recording or a dataset go away? Out of sight at once; then its files; then its row."""

from __future__ import annotations

from collections.abc import Awaitable

from sqlalchemy import delete, select, update

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import utcnow
from services.gateway.datasets import catalogue, metadata, recordings
from services.gateway.datasets.tables import Dataset, DatasetStatus, Sample, SampleStatus
from services.gateway.etags import check_match, etag
from services.gateway.one_by_one import one_by_one
from services.gateway.parts import Parts

log = get_logger("gateway.datasets")


async def remove_sample(parts: Parts, caller: Caller, sample_id: str) -> None:
    """Raises NotFound, and Conflict while a job works on its dataset."""
    async with parts.database.write() as session:
        sample, dataset = await recordings.find(session, caller, sample_id)
        await catalogue.check_unused(session, dataset.id, "delete the recording")
        sample.status = SampleStatus.deleting.value
        sample.updated_at = utcnow()
        audit.record(session, caller.id, "sample.deleted", sample.id, dataset_id=dataset.id)
    await _quietly(_finish_sample(parts, sample.id, dataset.slug, sample.sha256))
    await metadata.write(parts, dataset.id, dataset.slug)


async def remove_dataset(parts: Parts, caller: Caller, key: str, if_match: str | None) -> None:
    """Raises NotFound, PreconditionFailed, and Conflict while a job works on it. Its slug stays taken."""
    async with parts.database.write() as session:
        dataset = await catalogue.find(session, caller, key, for_update=True)
        check_match(if_match, etag(dataset.id, dataset.version))
        await catalogue.check_unused(session, dataset.id, "delete the dataset")
        dataset.status = DatasetStatus.deleting.value
        dataset.updated_at = utcnow()
        audit.record(session, caller.id, "dataset.deleted", dataset.id, slug=dataset.slug)
    await _quietly(_finish_dataset(parts, dataset.id, dataset.slug))


async def finish(parts: Parts) -> None:
    """Goes on with deletions that could not be finished."""

    async def dataset(dataset_id: str, slug: str) -> None:
        await _finish_dataset(parts, dataset_id, slug)

    async def sample(sample_id: str, slug: str, sha256: str) -> None:
        await _finish_sample(parts, sample_id, slug, sha256)

    datasets = select(Dataset.id, Dataset.slug).where(Dataset.status == DatasetStatus.deleting.value)
    await one_by_one(parts.database, datasets, Dataset.id, dataset)
    samples = (
        select(Sample.id, Dataset.slug, Sample.sha256)
        .join(Dataset, Dataset.id == Sample.dataset_id)
        .where(Sample.status == SampleStatus.deleting.value)
    )
    await one_by_one(parts.database, samples, Sample.id, sample)


async def _finish_sample(parts: Parts, sample_id: str, slug: str, sha256: str) -> None:
    await parts.ingest.call("DELETE", f"/datasets/{slug}/files/{sha256}")
    async with parts.database.write() as session:
        gone = Sample.status == SampleStatus.deleting.value
        await session.execute(delete(Sample).where(Sample.id == sample_id, gone))


async def _finish_dataset(parts: Parts, dataset_id: str, slug: str) -> None:
    await parts.ingest.call("DELETE", f"/datasets/{slug}")
    async with parts.database.write() as session:
        await session.execute(delete(Sample).where(Sample.dataset_id == dataset_id))
        # The row stays for its slug alone; what a person wrote goes.
        await session.execute(
            update(Dataset)
            .where(Dataset.id == dataset_id)
            .values(status=DatasetStatus.deleted.value, name="", description="", updated_at=utcnow())
        )


async def _quietly(work: Awaitable[None]) -> None:
    """The deletion holds in the database; what cannot be finished now, the sweeper finishes."""
    try:
        await work
    except PlatformError as error:
        log.warning("deletion.postponed", detail=error.detail)
