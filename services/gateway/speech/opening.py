"""How do many texts become a job? Checked together, queued in one transaction; nothing is kept of a refused one."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput, NotFound
from libs.common.events import TextInput
from libs.common.jobs import JobKind
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.jobs import lifecycle, reading
from services.gateway.jobs.tables import Job
from services.gateway.parts import Parts
from services.gateway.settings import GatewaySettings
from services.gateway.speech.schemas import OneText, SpeechJobOptions, SpeechJobRequest
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice

_OF_THE_JOB = {"voice", "name", "priority", "texts"}
MOST_BYTES = 900_000
"""Of all texts with their names: one message carries them, and a broker of which nothing is set takes a million."""


async def start(parts: Parts, caller: Caller, wanted: SpeechJobRequest, job_id: str) -> Job:
    """A queued job over the texts.

    Raises InvalidInput, NotFound for a voice that is not the caller's, VoiceNotReady; then nothing is kept.
    """
    check(wanted.texts, parts.settings)
    if wanted.pitch_shift and wanted.through is None:
        raise InvalidInput("pitch_shift needs `through`: an XTTS voice has one pitch", field="pitch_shift")
    async with parts.database.write() as session:
        repeated = await reading.opened_before(session, caller, job_id)
        if repeated is not None:
            return repeated
        return await _open(session, caller, wanted, job_id)


def check(texts: Sequence[OneText], settings: GatewaySettings) -> None:
    """Raises InvalidInput for more texts, or longer ones, than a job takes, and for an empty one."""
    if len(texts) > settings.speech_job_texts:
        raise InvalidInput(
            f"{len(texts)} texts are more than one job takes, which is {settings.speech_job_texts}",
            field="texts",
            limit=settings.speech_job_texts,
            actions=("Make several jobs of it.",),
        )
    for number, one in enumerate(texts):
        if not one.text.strip():
            raise InvalidInput(
                f"text {number + 1} is empty", field=f"texts.{number}.text", actions=("Leave it out, or write words.",)
            )
        if len(one.text) > settings.speech_job_text_limit:
            raise InvalidInput(
                f"text {number + 1} has {len(one.text)} characters; {settings.speech_job_text_limit} are possible",
                field=f"texts.{number}.text",
                limit=settings.speech_job_text_limit,
                actions=("Make several texts of it.",),
            )
    characters = sum(len(one.text) for one in texts)
    if characters > settings.speech_job_characters:
        raise InvalidInput(
            f"the texts have {characters} characters together; {settings.speech_job_characters} are what one job takes",
            field="texts",
            limit=settings.speech_job_characters,
            actions=("Make several jobs of it.",),
        )
    size = sum(len(json.dumps([one.text, one.name], ensure_ascii=False).encode("utf-8", "replace")) for one in texts)
    if size > MOST_BYTES:
        raise InvalidInput(
            f"the texts have {size} bytes with their names; {MOST_BYTES} are what one job takes",
            field="texts",
            limit=MOST_BYTES,
            actions=("Make several jobs of it.",),
        )


async def _open(session: AsyncSession, caller: Caller, wanted: SpeechJobRequest, job_id: str) -> Job:
    voices = await _voices(session, caller, wanted)
    through = None
    if wanted.through is not None:
        through = await registry.find_ready(session, caller, wanted.through, field="through")
    digits = max(3, len(str(len(wanted.texts))))
    inputs = [
        TextInput(
            number=number,
            name=one.name or f"text-{number:0{digits}}",
            text=one.text,
            voice=voices[one.voice or wanted.voice or ""].slug,
            language=one.language,
        )
        for number, one in enumerate(wanted.texts, 1)
    ]
    used = {voice.id: voice for voice in voices.values()}
    only = next(iter(used.values())) if len(used) == 1 else None
    spoken_by = only.name if only is not None else f"{len(used)} voices"
    settings = wanted.model_dump(mode="json", exclude=_OF_THE_JOB)
    job = await lifecycle.open_job(
        session,
        lifecycle.Order(
            id=job_id,
            owner_id=caller.id,
            kind=JobKind.speech,
            name=wanted.name or (f"{len(inputs)} texts by {spoken_by}" if len(inputs) > 1 else inputs[0].name),
            inputs=inputs,
            options=settings | {"through": through.slug if through else None},
            voice=only.slug if only is not None else None,
            priority=wanted.priority,
        ),
    )
    job.model_id = only.id if only is not None else None
    job.total_steps = len(inputs)
    job.summary = {"texts": len(inputs)}
    for voice in used.values():
        audit.record(session, caller.id, "voice.used", voice.id, job_id=job_id, texts=len(inputs))
    if through is not None:
        audit.record(session, caller.id, "voice.used", through.id, job_id=job_id, texts=len(inputs))
    return job


async def _voices(session: AsyncSession, caller: Caller, wanted: SpeechJobRequest) -> dict[str, Voice]:
    """Each voice that is named, by the name that the request gives it."""
    found: dict[str, Voice] = {}
    for number, one in enumerate(wanted.texts):
        named = one.voice or wanted.voice
        field = f"texts.{number}.voice" if one.voice else "voice"
        if named is None:
            raise InvalidInput(
                f"text {number + 1} names no voice, and the job has none",
                field="voice",
                actions=("Name a voice for all texts, or one for each.",),
            )
        if named in found:
            continue
        try:
            found[named] = await registry.find_ready(session, caller, named, to="speak", field=field)
        except NotFound as error:
            raise NotFound(error.detail, field=field) from error
    return found


def with_texts(options: SpeechJobOptions, texts: list[OneText], settings: GatewaySettings) -> SpeechJobRequest:
    """The request that a file and its query make. Raises InvalidInput as `check`."""
    check(texts, settings)
    return SpeechJobRequest.model_construct(**options.model_dump(), texts=texts)
