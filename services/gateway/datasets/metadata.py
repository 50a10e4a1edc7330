"""What does `metadata.csv` say? Made from the database each time, as LJSpeech has it, and laid beside the sounds."""

from __future__ import annotations

from collections.abc import Sequence

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from services.gateway.datasets import catalogue
from services.gateway.datasets.tables import Sample
from services.gateway.parts import Parts

log = get_logger("gateway.datasets")


def lines(samples: Sequence[Sample]) -> str:
    """`id|text|text`, one line per recording, where `wavs/<id>.wav` is the sound."""
    made = []
    for sample in samples:
        text = " ".join(sample.transcript.replace("|", " ").split())
        made.append(f"{sample.sha256}|{text}|{text}\n")
    return "".join(made)


async def write(parts: Parts, dataset_id: str, slug: str) -> None:
    """Has ingest lay the present lines into the dataset's folder, for people who look there.

    The database is the truth (C-21): when ingest is away the file stays behind until the next change.
    """
    async with parts.metadata_turn:
        async with parts.database.read() as session:
            content = lines(await catalogue.ready_samples(session, dataset_id))
        try:
            await parts.ingest.call(
                "PUT", f"/datasets/{slug}/metadata", content=content.encode(), headers={"Content-Type": "text/csv"}
            )
        except PlatformError as error:
            log.warning("metadata.not_written", dataset=slug, detail=error.detail)
