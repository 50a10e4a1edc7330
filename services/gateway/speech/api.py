"""What can be asked of voices that speak, and of a recording whose voice is to speak?"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from services.gateway.accounts.current import Creator
from services.gateway.openapi import FILE, binary, multipart
from services.gateway.parts import SharedParts
from services.gateway.patience import while_there
from services.gateway.routing import problems, router, streams
from services.gateway.speech.imitate import imitate
from services.gateway.speech.schemas import ImitationRequest, SynthesisRequest
from services.gateway.speech.synthesize import synthesize
from services.gateway.staging import receive

speech_router = router("/synthesize", "speech")

_TEXT, _NUMBER = {"type": "string"}, {"type": "number"}
_SOUND: dict[int | str, dict[str, Any]] = {
    200: binary("The speech", "audio/wav", "audio/flac", "audio/mpeg", "audio/ogg", "audio/pcm")
    | {
        "headers": {
            "X-Voice-Version": {"schema": _TEXT, "description": "The job that made the voice's version"},
            "X-Voice-Sha256": {"schema": _TEXT, "description": "Checksum of its weights"},
            "X-Language": {"schema": _TEXT, "description": "In which it was said"},
            "X-Characters-Left-Out": {"schema": _NUMBER, "description": "Emoji and signs that nobody can say"},
            "X-Sample-Rate": {"schema": _NUMBER, "description": "Hz"},
            "X-Duration-Seconds": {"schema": _NUMBER, "description": "Length of the sound; not of a stream"},
            "X-Real-Time-Factor": {"schema": _NUMBER, "description": "Seconds of work per second; not of a stream"},
        },
    }
}


@speech_router.post(
    "",
    operation_id="synthesize",
    summary="Have a voice say a text",
    response_class=Response,
    responses=problems(403, 404, 409, 429, 500) | _SOUND,
)
async def post_synthesize(body: SynthesisRequest, request: Request, caller: Creator, parts: SharedParts) -> Response:
    """The answer is the sound, whole, or with `stream` sentence by sentence while it is made.

    Sentences that come out wrong are said again before they are sent. A stream that fails later breaks off.
    """
    return await while_there(request, synthesize(parts, caller, body))


_SCHEMA = ImitationRequest.model_json_schema()
_FORM = multipart(
    {"audio": FILE | {"description": "A recording of the speaker alone, 3 to 30 s"}, **_SCHEMA["properties"]},
    required=("audio", *_SCHEMA["required"]),
)


@speech_router.post(
    "/reference",
    operation_id="synthesize_from_reference",
    summary="Have the voice of a recording say a text",
    response_class=Response,
    dependencies=[streams],
    responses=problems(403, 404, 409, 413, 415, 429, 500, 507) | _SOUND,
    openapi_extra=_FORM,
)
async def post_reference(request: Request, caller: Creator, parts: SharedParts) -> Response:
    """XTTS's base model imitates the speaker, without training: less like the speaker than a trained voice.

    The speaker's consent must be stated, and is put on record with the recording's checksum. Neither the recording nor
    how its speaker sounds is kept.
    """
    form = await receive(parts, request, parts.settings.convert_limit)
    return await while_there(request, imitate(parts, caller, form))
