"""Which samples are there, and what do they sound like?"""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import VoiceSampleNotFound
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.datasets import speakers, transcripts
from services.gateway.datasets.tables import GONE, Dataset, Sample, SampleStatus
from services.gateway.etags import check_match, etag
from services.gateway.text import is_key


async def find(session: AsyncSession, caller: Caller, sample_id: str) -> tuple[Sample, Dataset]:
    """The sample and its dataset; raises VoiceSampleNotFound, also for a stranger's and for one not yet complete."""
    row = None
    if is_key(sample_id):
        statement = (
            select(Sample, Dataset)
            .join(Dataset, Dataset.id == Sample.dataset_id)
            .where(
                Sample.id == sample_id,
                Sample.status == SampleStatus.ready.value,
                Dataset.status.not_in(GONE),
                caller.sees(Sample.owner_id),
            )
        )
        row = (await session.execute(statement)).one_or_none()
    if row is None:
        raise VoiceSampleNotFound(f"there is no sample {sample_id[:80]!r}")
    return row[0], row[1]


async def listing(
    session: AsyncSession, caller: Caller, *, dataset_id: str | None, after: str | None, limit: int
) -> list[tuple[Sample, Dataset]]:
    """Up to `limit` samples that the caller may see, oldest first, of one dataset when `dataset_id` is given."""
    statement = (
        select(Sample, Dataset)
        .join(Dataset, Dataset.id == Sample.dataset_id)
        .where(Sample.status == SampleStatus.ready.value, Dataset.status.not_in(GONE), caller.sees(Sample.owner_id))
        .order_by(Sample.id)
        .limit(limit)
    )
    if dataset_id is not None:
        statement = statement.where(Sample.dataset_id == dataset_id)
    if after is not None:
        statement = statement.where(Sample.id > after)
    return [(row[0], row[1]) for row in await session.execute(statement)]


async def change(
    session: AsyncSession,
    caller: Caller,
    sample_id: str,
    *,
    transcript: str | None,
    speaker_id: int | None,
    if_match: str | None,
) -> tuple[Sample, Dataset]:
    """The sample with what a person says of it; None stays. Raises PreconditionFailed when `if_match` is outdated."""
    sample, dataset = await find(session, caller, sample_id)
    check_match(if_match, etag(sample.id, sample.version))
    changed = []
    if speaker_id is not None and speakers.tell(sample, speaker_id):
        changed.append("speaker_id")
    if transcript is not None and transcripts.tell(sample, transcript):
        changed.append("transcript")
    if changed:
        audit.record(session, caller.id, "sample.changed", sample.id, fields=changed)
    return sample, dataset
