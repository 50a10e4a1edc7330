"""How do programs that were written for OpenAI's speech have our voices speak? The same address, fields and errors.

`OpenAI(base_url="https://voices.example.com/v1", api_key=ACCESS_TOKEN).audio.speech.create(model="xtts-v2", voice=…)`
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field

from libs.common import problems
from libs.common.errors import InvalidInput, PlatformError
from libs.common.invalid import field_of, message_of
from services.gateway.accounts.current import Creator
from services.gateway.openapi import binary
from services.gateway.parts import SharedParts
from services.gateway.patience import while_there
from services.gateway.routing import GatewayRoute
from services.gateway.speech.schemas import SynthesisRequest
from services.gateway.speech.synthesize import synthesize

_TYPES = {429: "rate_limit_error", 401: "authentication_error", 403: "permission_error"}
_NAMES = {"text": "input", "format": "response_format"}
"""Our fields as OpenAI calls them."""


class OpenAIRoute(GatewayRoute):
    """A route that tells its refusals as OpenAI does: `{"error": {"message", "type", "param", "code"}}`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await inner(request)
            except RequestValidationError as error:
                first = error.errors()[0]
                field = field_of(first)
                return refusal(400, f"{field or 'body'}: {message_of(first)}", param=field, code="invalid_input")
            except PlatformError as error:
                told = problems.as_told(request.app, error)
                # What we cannot accept is a bad request to OpenAI; its client repeats 429 and what begins with 5.
                status = 400 if told["status"] in (413, 422) else int(told["status"])
                advice = " ".join(told.get("suggested_actions", ()))
                named = told.get("field")
                return refusal(
                    status,
                    f"{told['detail']} {advice}".strip(),
                    param=_NAMES.get(named, named) if named else None,
                    code=str(told["code"]),
                    headers=dict(problems.answer(told).headers) if status in (401, 429, 503) else {},
                )

        return handle


def refusal(
    status: int, message: str, *, param: str | None, code: str, headers: dict[str, str] | None = None
) -> JSONResponse:
    """An error in OpenAI's form; of `headers` only those that say how to come back."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    kept = {name: value for name, value in (headers or {}).items() if name in ("retry-after", "www-authenticate")}
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status_code=status, headers=kept)


class VoiceId(BaseModel):
    """A custom voice as OpenAI's newer clients name it."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(min_length=1, max_length=200, examples=["linda"])


class SpeechBody(BaseModel):
    """What OpenAI's client sends."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(max_length=200, description="Any: the voice decides what speaks", examples=["xtts-v2"])
    input: str = Field(max_length=1_000_000, description="The text", examples=["Good morning. How are you today?"])
    voice: str | VoiceId = Field(description="Id, slug or name of one of your voices that speak", examples=["linda"])
    response_format: Literal["mp3", "opus", "flac", "wav", "pcm"] = Field(
        default="mp3", description="As OpenAI's, but for aac", examples=["mp3"]
    )
    speed: float = Field(default=1.0, ge=0.25, le=4.0, description="2 is twice as fast", examples=[1.0])
    instructions: str | None = Field(default=None, description="Must be empty: XTTS takes none", examples=[None])
    stream_format: Literal["audio"] = Field(default="audio", examples=["audio"])


_ERROR = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["error"],
            "properties": {
                "error": {
                    "type": "object",
                    "required": ["message", "type", "param", "code"],
                    "properties": {
                        "message": {"type": "string"},
                        "type": {"type": "string"},
                        "param": {"type": ["string", "null"]},
                        "code": {"type": "string"},
                    },
                }
            },
        }
    }
}
_MEANINGS = {
    400: "The request cannot be accepted; `param` names the field",
    401: "No token, or one that is expired, foreign or garbled",
    403: "Your role does not allow this",
    404: "There is no such voice, or it belongs to somebody else",
    409: "The voice is not ready yet",
    429: "Too many at once; see Retry-After",
    500: "The voice did not say the text",
    503: "A part of the platform is not reachable",
}

openai_router = APIRouter(prefix="/v1", tags=["speech"], route_class=OpenAIRoute)


@openai_router.post(
    "/audio/speech",
    operation_id="openai_speech",
    summary="Have a voice say a text, for OpenAI's clients",
    response_class=Response,
    responses={
        200: binary("The speech", "audio/mpeg", "audio/ogg", "audio/flac", "audio/wav", "audio/pcm"),
        **{status: {"description": said, "content": _ERROR} for status, said in _MEANINGS.items()},
    },
)
async def create_speech(body: SpeechBody, request: Request, caller: Creator, parts: SharedParts) -> Response:
    """The sound sentence by sentence while it is made, as `POST /api/v1/synthesize` with `stream`.

    The API key is an access token of this platform.
    """
    if body.instructions:
        raise InvalidInput("the voice takes no instructions", field="instructions", actions=("Leave them out.",))
    voice = body.voice if isinstance(body.voice, str) else body.voice.id
    if not 0 < len(voice) <= 200 or "\0" in voice:
        raise InvalidInput("the voice's name has 1 to 200 characters", field="voice")
    wanted = SynthesisRequest(text=body.input, voice=voice, speed=body.speed, format=body.response_format, stream=True)
    return await while_there(request, synthesize(parts, caller, wanted))
