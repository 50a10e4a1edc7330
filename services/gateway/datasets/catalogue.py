"""Which datasets are there, and what is in them?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, case, exists, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Conflict, NotFound
from libs.common.jobs import ACTIVE, WORKS_IN_DATASET, JobState, Step
from services.gateway import slugs
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.datasets import speakers
from services.gateway.datasets.tables import GONE, Dataset, DatasetStatus, Sample, SampleStatus
from services.gateway.describing import describe
from services.gateway.jobs.tables import Job
from services.gateway.text import is_key


@dataclass(frozen=True)
class Summary:
    """A dataset with what it holds and what is done with it."""

    dataset: Dataset
    status: DatasetStatus = DatasetStatus.active
    shares: tuple[speakers.Share, ...] = ()

    @property
    def item_count(self) -> int:
        """Recordings in it."""
        return sum(share.recordings for share in self.shares)

    @property
    def duration_seconds(self) -> float:
        """Of sound, all recordings together."""
        return sum(share.seconds for share in self.shares)


async def find(session: AsyncSession, caller: Caller, key: str, *, for_update: bool = False) -> Dataset:
    """The dataset with id or slug `key`; raises NotFound, also for somebody else's."""
    dataset = None
    if is_key(key):
        statement = select(Dataset).where(
            or_(Dataset.id == key, Dataset.slug == key), caller.sees(Dataset.owner_id), Dataset.status.not_in(GONE)
        )
        dataset = await session.scalar(statement.with_for_update() if for_update else statement)
    if dataset is None:
        raise NotFound(f"there is no dataset {key[:80]!r}")
    return dataset


async def find_by_name(session: AsyncSession, caller: Caller, name: str) -> Dataset | None:
    """The caller's own dataset of that slug or, else, their newest of that name; None when they have none."""
    own = select(Dataset).where(Dataset.owner_id == caller.id, Dataset.status.not_in(GONE))
    by_slug = await session.scalar(own.where(Dataset.slug == name)) if is_key(name) else None
    return by_slug or await session.scalar(own.where(Dataset.name == name).order_by(Dataset.id.desc()).limit(1))


async def create(
    session: AsyncSession, caller: Caller, *, dataset_id: str, name: str, description: str = ""
) -> tuple[Dataset, bool]:
    """A new dataset of the caller's, and whether its slug got a suffix. A repeated call finds what the first made."""
    made = await session.get(Dataset, dataset_id)
    if made is not None and made.owner_id == caller.id:
        return made, False
    dataset, renamed = await slugs.insert(
        session,
        lambda slug: Dataset(id=dataset_id, owner_id=caller.id, slug=slug, name=name, description=description),
        Dataset.slug,
        name,
        "dataset",
    )
    audit.record(session, caller.id, "dataset.created", dataset.id, slug=dataset.slug)
    return dataset, renamed


def _status() -> ColumnElement[str]:
    """`processing` while a job works in the dataset, `failed` when the latest one could not prepare it (F-060)."""
    works = (Job.dataset_id == Dataset.id, Job.kind.in_([kind.value for kind in WORKS_IN_DATASET]))
    is_worked_on = exists().where(*works, Job.status.in_(ACTIVE)).correlate(Dataset)
    could_not_be_prepared = and_(
        Job.status == JobState.failed.value, Job.phase.in_([Step.validate.value, Step.preprocess.value])
    )
    latest = select(could_not_be_prepared).where(*works).order_by(Job.id.desc()).limit(1)
    return case(
        (is_worked_on, DatasetStatus.processing.value),
        (latest.correlate(Dataset).scalar_subquery(), DatasetStatus.failed.value),
        else_=DatasetStatus.active.value,
    )


async def summary(session: AsyncSession, dataset: Dataset) -> Summary:
    """How much one dataset holds, and what is done with it."""
    status = await session.scalar(select(_status()).where(Dataset.id == dataset.id))
    shares = await speakers.in_datasets(session, [dataset.id])
    return Summary(dataset, DatasetStatus(status or dataset.status), shares[dataset.id])


async def listing(session: AsyncSession, caller: Caller, *, after: str | None, limit: int) -> list[Summary]:
    """Up to `limit` datasets that the caller may see, newest first, those older than `after`."""
    statement = (
        select(Dataset, _status())
        .where(Dataset.status.not_in(GONE), caller.sees(Dataset.owner_id))
        .order_by(Dataset.id.desc())
        .limit(limit)
    )
    if after is not None:
        statement = statement.where(Dataset.id < after)
    found = (await session.execute(statement)).all()
    shares = await speakers.in_datasets(session, [dataset.id for dataset, _ in found])
    return [Summary(dataset, DatasetStatus(status), shares[dataset.id]) for dataset, status in found]


async def change(
    session: AsyncSession,
    caller: Caller,
    key: str,
    *,
    name: str | None,
    description: str | None,
    if_match: str | None,
) -> Dataset:
    """The dataset renamed or described anew; its slug stays. Raises PreconditionFailed when `if_match` is outdated."""
    dataset = await find(session, caller, key, for_update=True)
    describe(session, caller, dataset, "dataset", name=name, description=description, if_match=if_match)
    return dataset


async def hold(session: AsyncSession, dataset_id: str) -> bool:
    """Whether the dataset is there; until the transaction ends, no job begins on it and it is not deleted."""
    status = await session.scalar(select(Dataset.status).where(Dataset.id == dataset_id).with_for_update())
    return status is not None and status not in GONE


async def check_unused(session: AsyncSession, dataset_id: str, what: str) -> None:
    """Raises Conflict while a job works on the dataset: its inputs must not disappear under it."""
    await hold(session, dataset_id)
    job = await session.scalar(select(Job.id).where(Job.dataset_id == dataset_id, Job.status.in_(ACTIVE)).limit(1))
    if job is not None:
        raise Conflict(f"job {job} works on this dataset", actions=(f"Wait for the job or cancel it, then {what}.",))


async def ready_samples(session: AsyncSession, dataset_id: str) -> Sequence[Sample]:
    """The recordings of a dataset in the order of their arrival."""
    statement = select(Sample).where(Sample.dataset_id == dataset_id, Sample.status == SampleStatus.ready.value)
    return (await session.scalars(statement.order_by(Sample.id))).all()
