"""What does a training of a voice that speaks need beforehand? Clips with their texts, a language, perhaps consent."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import DatasetEmpty, InvalidInput
from libs.common.events import SpokenClip, TrainingOptions
from libs.common.providers import Provider
from services.gateway.datasets import catalogue
from services.gateway.datasets.tables import Dataset

NAMED = 5


async def clips_of(session: AsyncSession, dataset: Dataset) -> tuple[SpokenClip, ...]:
    """The dataset's recordings with what is said in them, in the order of their arrival."""
    return tuple(
        SpokenClip(
            sample_id=sample.id,
            sha256=sample.sha256,
            extension=sample.extension,
            transcript=sample.transcript,
            by_machine=sample.transcript_by_machine,
            name=sample.original_name,
            speaker=sample.speaker_id,
            seconds=sample.duration_seconds,
        )
        for sample in await catalogue.ready_samples(session, dataset.id)
    )


def learnt_from(clips: Sequence[SpokenClip], options: TrainingOptions) -> list[SpokenClip]:
    """All but the consent recording, which says something else. Raises InvalidInput when it is not in the dataset."""
    consent = options.consent_recording
    rest = [clip for clip in clips if clip.sample_id != consent]
    if consent is not None and len(rest) == len(clips):
        raise InvalidInput(
            "options.consent_recording names no recording of this dataset",
            field="options.consent_recording",
            actions=("Upload the consent recording to the same dataset, and send its id.",),
        )
    return rest


def check_transcripts(provider: Provider, clips: Sequence[SpokenClip], *, by_machine: bool = False) -> None:
    """Raises DatasetEmpty when not one clip says what is spoken in it; the rest is for the worker's closer look.

    `by_machine`: the worker will write what is missing.
    """
    if by_machine or not provider.needs.transcripts or not clips:
        return
    silent = [clip for clip in clips if not clip.transcript.strip()]
    if len(silent) == len(clips):
        raise DatasetEmpty(
            f"none of the {len(clips)} recordings has a transcript, and {provider.name} learns from text and sound",
            field="transcript",
            actions=(
                "Send the text of each recording: PATCH /api/v1/samples/{id}, or with the upload.",
                "Or have a machine write them: options.transcribe, where the trainer has faster-whisper.",
            ),
            recordings=[clip.name for clip in silent[:NAMED]],
        )


def doubts(provider: Provider, clips: Sequence[SpokenClip], language: str | None) -> list[InvalidInput]:
    """What is wrong with single clips, as far as their lengths and texts say; the rest needs the worker's closer look.

    Such clips are left out of a training, which may still begin; but for those that a machine wrote the texts of.
    """
    found: list[InvalidInput] = []
    if provider.needs.transcripts:
        silent = [clip.name for clip in clips if not clip.transcript.strip()]
        if silent:
            found.append(_about(silent, "without a transcript", "transcript"))
        unread = [clip.name for clip in clips if clip.by_machine and clip.transcript.strip()]
        if unread:
            how = "Read them, and send them as they are or mended: GET and PUT /api/v1/datasets/{id}/metadata.csv."
            found.append(_about(unread, "with a transcript by machine that nobody has confirmed", "transcript", how))
    if provider.needs.clip_seconds is not None:
        least, most = provider.needs.clip_seconds
        outside = [
            clip.name for clip in clips if not (least <= clip.seconds <= most or _is_cut(clip, provider, language))
        ]
        if outside:
            longer = provider.needs.cut_languages if language is None else ()
            how = f"Ask with language={longer[0]} if they are: longer ones are cut then." if longer else ""
            found.append(_about(outside, f"not of {least:g} to {most:g} s", "recordings", how))
    return found


def _is_cut(clip: SpokenClip, provider: Provider, language: str | None) -> bool:
    """Whether the worker tries to cut a long recording into parts with their texts."""
    needs = provider.needs
    is_long = needs.clip_seconds is not None and needs.clip_seconds[1] < clip.seconds <= needs.cut_seconds
    return is_long and language in needs.cut_languages and bool(clip.transcript.strip())


def _about(names: list[str], what: str, field: str, how: str = "") -> InvalidInput:
    return InvalidInput(
        f"{len(names)} recordings are {what}, such as {names[0]!r}",
        field=field,
        actions=(how,) if how else None,
        names=names[:NAMED],
    )
