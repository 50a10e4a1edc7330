"""What does `metadata.csv` say? Made from the database each time, as LJSpeech has it, and laid beside the sounds.

Going in, it carries transcripts: `id|text` or `id|text|normalised text`, where the id is a recording's checksum or its
name without the ending.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput, PlatformError
from libs.common.logs import get_logger
from services.gateway.audit import audit
from services.gateway.datasets import catalogue, transcripts
from services.gateway.datasets.tables import Dataset, Sample
from services.gateway.parts import Parts

log = get_logger("gateway.datasets")

NAMED = 5


def lines(samples: Sequence[Sample]) -> str:
    """`id|text|text`, one line per recording, where `wavs/<id>.wav` is the sound."""
    made = []
    for sample in samples:
        text = " ".join(sample.transcript.replace("|", " ").split())
        made.append(f"{sample.sha256}|{text}|{text}\n")
    return "".join(made)


def read(content: bytes) -> dict[str, str]:
    """The text of each clip, by the name that the file gives it; the last column counts, as LJSpeech's normalised does.

    A clip whose text is empty, as it comes out for a recording without one, is not named. Raises InvalidInput, naming
    the line, for what is not UTF-8, is not of this form, or names a clip twice.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"metadata.csv is not UTF-8 at byte {error.start}", field="body") from error
    found: dict[str, str] = {}
    for number, row in enumerate(text.split("\n"), 1):
        if not row.strip():
            continue
        columns = [" ".join(column.split()) for column in row.split("|")]
        name = columns[0].removeprefix("wavs/")
        said = next((column for column in reversed(columns[1:]) if column), "")
        if not name or len(columns) < 2 or "\0" in row:
            raise InvalidInput(f"line {number} of metadata.csv is not of the form id|text", field="body")
        if len(said) > transcripts.LONGEST_TEXT:
            raise InvalidInput(
                f"line {number} of metadata.csv has {len(said)} characters; {transcripts.LONGEST_TEXT} are the most",
                field="body",
            )
        if name in found:
            raise InvalidInput(f"line {number} of metadata.csv names {name[:80]!r} a second time", field="body")
        found[name] = said
    return {name: said for name, said in found.items() if said}


@dataclass(frozen=True)
class Taken:
    """How many recordings have another text now, or one that a machine wrote and a person sent as it is; how many of
    the dataset have none still, or one that nobody has confirmed."""

    changed: int
    confirmed: int
    without: int
    by_machine: int


async def take(session: AsyncSession, owner_id: str, dataset: Dataset, content: bytes) -> Taken:
    """Writes the texts of a file to the dataset's recordings, as a person's.

    Raises InvalidInput when a line names no recording, or two, and changes nothing then.
    """
    texts = read(content)
    samples = await catalogue.ready_samples(session, dataset.id)
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        for name in {sample.sha256, sample.original_name, PurePosixPath(sample.original_name).stem}:
            by_name.setdefault(name, []).append(sample)
    wanted = {name: by_name.get(name, by_name.get(name.removesuffix(".wav"), [])) for name in texts}
    wrong = [name for name, found in wanted.items() if len(found) != 1]
    if wrong:
        raise InvalidInput(
            f"{len(wrong)} lines of metadata.csv name no recording of the dataset, or several: {wrong[0][:80]!r}",
            field="body",
            actions=("Name each recording by its file's name or its checksum.",),
            names=wrong[:NAMED],
        )
    changed = confirmed = 0
    for name, (sample,) in wanted.items():
        before = sample.transcript
        if transcripts.tell(sample, texts[name]):
            changed += before != texts[name]
            confirmed += before == texts[name]
    if changed or confirmed:
        audit.record(session, owner_id, "dataset.transcribed", dataset.id, changed=changed, confirmed=confirmed)
    return Taken(
        changed=changed,
        confirmed=confirmed,
        without=sum(not sample.transcript for sample in samples),
        by_machine=sum(sample.transcript_by_machine for sample in samples),
    )


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
