"""What can be asked about jobs over many texts?"""

from __future__ import annotations

from typing import Annotated

from fastapi import Query, Request, Response

from libs.common.errors import InvalidInput
from libs.common.jobs import JobKind
from services.gateway.accounts.current import Creator
from services.gateway.conversions.results_api import add_result_routes
from services.gateway.idempotency import reserved_id
from services.gateway.jobs.api import accepted, add_job_routes
from services.gateway.jobs.schemas import JobOut
from services.gateway.parts import SharedParts
from services.gateway.routing import creates, problems, router
from services.gateway.speech import opening, text_files
from services.gateway.speech.schemas import SpeechJobOptions, SpeechJobRequest

speech_job_router = router("/synthesize", "speech")

_READERS = {"text/csv": text_files.read_table, "text/plain": text_files.read_lines}
_FILE = {
    "requestBody": {
        "required": True,
        "content": {
            "text/csv": {"schema": {"type": "string"}, "example": "name,text\nmorning,Good morning.\n"},
            "text/plain": {"schema": {"type": "string"}, "example": "Good morning.\nGood night.\n"},
        },
    }
}


@speech_job_router.post(
    "/jobs",
    status_code=202,
    operation_id="start_speech",
    summary="Have voices say many texts",
    dependencies=[creates],
    responses=problems(403, 404, 409),
)
async def start_speech(
    body: SpeechJobRequest, request: Request, response: Response, caller: Creator, parts: SharedParts
) -> JobOut:
    """Queues a job that makes a sound of each text, with one voice for all or one for each.

    A text that cannot be said fails alone, and the job says that its result is partial. The sounds are kept for
    CONVERSION_RESULTS_LIFETIME. A job that failed or was cancelled goes on where it stopped: `POST …/retry`.
    """
    return accepted(response, parts, await opening.start(parts, caller, body, reserved_id(request, "job")))


@speech_job_router.post(
    "/jobs/file",
    status_code=202,
    operation_id="start_speech_from_file",
    summary="Have voices say the texts of a file",
    dependencies=[creates],
    responses=problems(403, 404, 409),
    openapi_extra=_FILE,
)
async def start_speech_from_file(
    options: Annotated[SpeechJobOptions, Query()],
    request: Request,
    response: Response,
    caller: Creator,
    parts: SharedParts,
) -> JobOut:
    """The same for a file. `text/plain`: each line is a text. `text/csv`: a table with a head, whose columns are `text`
    and, where they are wanted, `name`, `voice` and `language`; or LJSpeech's `name|text` without a head.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    reader = _READERS.get(kind)
    if reader is None:
        raise InvalidInput(
            f"a file of the type {kind[:80] or 'that is not named'} is not read",
            field="Content-Type",
            actions=("Send text/csv or text/plain.",),
        )
    wanted = opening.with_texts(options, reader(await request.body()), parts.settings)
    return accepted(response, parts, await opening.start(parts, caller, wanted, reserved_id(request, "job")))


add_job_routes(speech_job_router, JobKind.speech)
add_result_routes(speech_job_router, JobKind.speech, "text")
