"""What can be asked of voices that speak?"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from services.gateway.accounts.current import Creator
from services.gateway.openapi import binary
from services.gateway.parts import SharedParts
from services.gateway.patience import while_there
from services.gateway.routing import problems, router
from services.gateway.speech.schemas import SynthesisRequest
from services.gateway.speech.synthesize import synthesize

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
