"""What can be asked of inference through the gateway?"""

from __future__ import annotations

from typing import Any

from fastapi import Request
from fastapi.responses import Response

from services.gateway.accounts.current import Creator
from services.gateway.conversion.convert import ConversionOptions, convert
from services.gateway.openapi import FILE, TEXT, binary, multipart
from services.gateway.parts import SharedParts
from services.gateway.patience import while_there
from services.gateway.routing import problems, router, streams
from services.gateway.staging import receive

conversion_router = router("/convert", "conversion")

_FORM = multipart(
    {
        "audio": FILE | {"description": "The recording, in any format"},
        "voice": TEXT | {"description": "Id, slug or name of one of your voices"},
        **ConversionOptions.model_json_schema()["properties"],
    },
    required=("audio", "voice"),
)
_SOUND: dict[int | str, dict[str, Any]] = {
    200: binary("The converted sound", "audio/wav", "audio/flac", "audio/mpeg", "audio/ogg")
    | {
        "headers": {
            "X-Voice-Version": {"schema": {"type": "string"}, "description": "The job that made the voice's version"},
            "X-Voice-Sha256": {"schema": {"type": "string"}, "description": "Checksum of its weights"},
            "X-Duration-Seconds": {"schema": {"type": "number"}, "description": "Length of the sound"},
            "X-Real-Time-Factor": {"schema": {"type": "number"}, "description": "Seconds of work per second of sound"},
        },
    }
}


@conversion_router.post(
    "",
    operation_id="convert",
    summary="Give a recording another voice",
    response_class=Response,
    dependencies=[streams],
    responses=problems(403, 404, 409, 413, 415, 429, 507) | _SOUND,
    openapi_extra=_FORM,
)
async def convert_recording(request: Request, caller: Creator, parts: SharedParts) -> Response:
    """The answer is the sound, and nothing is kept of the recording. Long ones, or several, go to `/convert/jobs`."""
    form = await receive(parts, request, parts.settings.convert_limit)
    return await while_there(request, convert(parts, caller, form))
