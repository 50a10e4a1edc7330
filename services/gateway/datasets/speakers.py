"""Whose voice is in a recording? A number from 0 to 108; a voice trained on several is asked for one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput
from libs.common.speakers import HIGHEST_SPEAKER
from services.gateway.database import utcnow
from services.gateway.datasets.tables import Sample, SampleStatus


@dataclass(frozen=True)
class Share:
    """What a dataset holds of one speaker; `seconds` of sound, all of their recordings together."""

    speaker_id: int
    recordings: int
    seconds: float


def read(text: str) -> int | None:
    """The speaker's number as a form has it; None where it is empty. Raises InvalidInput for anything but 0 to 108."""
    text = text.strip()
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) <= HIGHEST_SPEAKER):
        raise InvalidInput(
            f"speaker_id is {text[:40]!r}; it is a whole number from 0 to {HIGHEST_SPEAKER}",
            field="speaker_id",
            limit=HIGHEST_SPEAKER,
            actions=("Number the speakers of a dataset 0, 1, 2 …, or leave it out for 0.",),
        )
    return int(text)


def tell(sample: Sample, speaker_id: int) -> bool:
    """A person says whose voice it is. False when that was known."""
    if sample.speaker_id == speaker_id:
        return False
    sample.speaker_id = speaker_id
    sample.version, sample.updated_at = sample.version + 1, utcnow()
    return True


def to_tell(found: Sequence[Share]) -> Sequence[Share]:
    """What is worth telling: nothing where every recording has the number 0, as nobody has said anything then."""
    return found if any(share.speaker_id for share in found) else ()


async def in_datasets(session: AsyncSession, dataset_ids: Sequence[str]) -> dict[str, tuple[Share, ...]]:
    """How much there is of each speaker, by their numbers, for each of `dataset_ids`."""
    held = (
        select(Sample.dataset_id, Sample.speaker_id, func.count(), func.sum(Sample.duration_seconds))
        .where(Sample.dataset_id.in_(dataset_ids), Sample.status == SampleStatus.ready.value)
        .group_by(Sample.dataset_id, Sample.speaker_id)
        .order_by(Sample.dataset_id, Sample.speaker_id)
    )
    found: dict[str, tuple[Share, ...]] = dict.fromkeys(dataset_ids, ())
    for dataset_id, speaker_id, recordings, seconds in await session.execute(held):
        found[dataset_id] += (Share(speaker_id, recordings, float(seconds)),)
    return found
