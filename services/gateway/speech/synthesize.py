"""Who may have which voice say a text? The caller's own; inference says it, and the sound is streamed on."""

from __future__ import annotations

from libs.common.errors import InvalidInput
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.parts import Parts
from services.gateway.speech.schemas import SynthesisRequest
from services.gateway.streaming import ForwardedResponse, forward
from services.gateway.voices import registry

KEPT_HEADERS = (
    "x-voice-version",
    "x-voice-sha256",
    "x-duration-seconds",
    "x-real-time-factor",
    "x-sample-rate",
    "x-language",
    "x-characters-left-out",
)


async def synthesize(parts: Parts, caller: Caller, wanted: SynthesisRequest) -> ForwardedResponse:
    """The sound as it comes from inference.

    Raises NotFound for a voice that is not the caller's, VoiceNotReady, InvalidInput for one that does not speak (or,
    for `through`, does not convert), and what inference says: about the text, the language, Busy, SynthesisFailed,
    ProviderUnavailable.
    """
    if wanted.pitch_shift and wanted.through is None:
        raise InvalidInput("pitch_shift needs `through`: an XTTS voice has one pitch", field="pitch_shift")
    async with parts.database.write() as session:
        voice = await registry.find_ready(session, caller, wanted.voice, to="speak")
        audit.record(session, caller.id, "voice.used", voice.id, job_id=voice.job_id, characters=len(wanted.text))
        through = None
        if wanted.through is not None:
            through = await registry.find_ready(session, caller, wanted.through, field="through")
            audit.record(session, caller.id, "voice.used", through.id, job_id=through.job_id, speaker=voice.id)
    return await forward(
        parts.inference,
        "POST",
        "/speech",
        json=wanted.model_dump() | {"voice": voice.slug, "through": through.slug if through else None},
        timeout=parts.settings.synthesis_timeout.total_seconds(),
        keep=KEPT_HEADERS,
    )
