"""What is said in a recording, and did a person say so? A person's word stands; a machine's fills what is empty."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.storable import storable_text
from services.gateway.database import utcnow
from services.gateway.datasets.tables import Sample, SampleStatus

LONGEST_TEXT = 10_000


def tell(sample: Sample, text: str) -> bool:
    """A person says what is said; the same text as a machine's confirms it. False when all of it was known."""
    if sample.transcript == text and not sample.transcript_by_machine:
        return False
    sample.transcript, sample.transcript_by_machine = text, False
    sample.version, sample.updated_at = sample.version + 1, utcnow()
    return True


async def hear(session: AsyncSession, dataset_id: str, texts: Mapping[str, str]) -> int:
    """A machine's texts, by sample, for those of the dataset that have none by now; returns how many were written.

    What no person could send, because it is too long, is left out.
    """
    held = select(Sample).where(Sample.dataset_id == dataset_id, Sample.status == SampleStatus.ready.value)
    written = 0
    for sample in await session.scalars(held.with_for_update()):
        text = texts.get(sample.id, "").strip()
        if text and len(text) <= LONGEST_TEXT and not sample.transcript.strip():
            sample.transcript, sample.transcript_by_machine = storable_text(text, LONGEST_TEXT), True
            sample.version, sample.updated_at = sample.version + 1, utcnow()
            written += 1
    return written
