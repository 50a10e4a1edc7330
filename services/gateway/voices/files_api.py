"""What can be asked about the files of voices? To take one in, make one of others, look into one, try it, convert it.

Whatever opens a model file is done elsewhere: jobs by the trainer, short questions by inference.
"""

from __future__ import annotations

from typing import Any

from fastapi import Request, Response

from services.gateway.accounts.current import Caller, Creator, CurrentUser
from services.gateway.audit import audit
from services.gateway.idempotency import reserved_id
from services.gateway.jobs.api import accepted
from services.gateway.jobs.schemas import JobOut
from services.gateway.openapi import FILE, binary, multipart
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import creates, problems, router, streams
from services.gateway.staging import receive
from services.gateway.streaming import ForwardedResponse, forward
from services.gateway.voices import making, registry
from services.gateway.voices.schemas import ConvertRequest, MergeRequest, ModelFacts, VoiceCheck, VoiceForm
from services.gateway.voices.tables import Voice

file_router = router("/models", "models")

_FIELDS = VoiceForm.model_json_schema()["properties"]
_BINARY: dict[int | str, dict[str, Any]] = {200: binary("The file", "application/octet-stream")}


def _form(**files: str) -> dict[str, Any]:
    described = {name: FILE | {"description": what} for name, what in files.items()}
    return multipart({**described, **_FIELDS}, required=("model", "name"))


@file_router.post(
    "/import",
    status_code=202,
    operation_id="import_model",
    summary="Take a voice in",
    dependencies=[creates, streams],
    responses=problems(403, 409, 507),
    openapi_extra=_form(
        model="A voice's `.pth` or `.safetensors`, or a zip of RVC, Applio or this platform", index="Its `.index`"
    ),
)
async def import_model(request: Request, response: Response, caller: Creator, parts: SharedParts) -> JobOut:
    """A voice of RVC, of Applio, or of another installation. Its files wait in quarantine until they have been opened
    safely, tried, and found to make sound; what is refused is removed, and the job says why."""
    form = await receive(parts, request, parts.settings.model_limit, to="/model-files")
    job = await making.from_files(parts, caller, form, "import", job_id=reserved_id(request, "job"))
    return accepted(response, parts, job)


@file_router.post(
    "/extract",
    status_code=202,
    operation_id="extract_model",
    summary="Make a voice of a training checkpoint",
    dependencies=[creates, streams],
    responses=problems(403, 409, 507),
    openapi_extra=_form(
        model="A training checkpoint of RVC or Applio, `G_….pth`",
        index="The `.index` of the same training",
        config="Its `config.json`, where the tensors do not tell the network",
    ),
)
async def extract_model(request: Request, response: Response, caller: Creator, parts: SharedParts) -> JobOut:
    """The voice in a `G_….pth`, without what only training needs; taken in as an import is."""
    form = await receive(parts, request, parts.settings.model_limit, to="/model-files")
    job = await making.from_files(parts, caller, form, "extract", job_id=reserved_id(request, "job"))
    return accepted(response, parts, job)


@file_router.post(
    "/merge",
    status_code=202,
    operation_id="merge_models",
    summary="Mix two voices",
    dependencies=[creates],
    responses=problems(403, 404, 409),
)
async def merge_models(
    body: MergeRequest, request: Request, response: Response, caller: Creator, parts: SharedParts
) -> JobOut:
    """A new voice between two of yours that have the same network. It has no index."""
    async with parts.database.write() as session:
        job = await making.merged(session, caller, body, job_id=reserved_id(request, "job"))
    return accepted(response, parts, job)


async def _ready(parts: Parts, caller: Caller, key: str, action: str | None = None, **details: Any) -> Voice:
    """A voice of the caller's that has a version; what is done with it is written down."""
    async with parts.database.write() as session:
        voice = await registry.find(session, caller, key)
        registry.expect_ready(voice)
        if action:
            audit.record(session, caller.id, action, voice.id, job_id=voice.job_id, **details)
    return voice


def _inside(voice: Voice) -> str:
    return f"/voices/{voice.slug}/versions/{voice.job_id}"


@file_router.get(
    "/{model_id}/inspect", operation_id="inspect_model", summary="Look into a voice", responses=problems(404, 409, 429)
)
async def inspect_model(model_id: str, caller: CurrentUser, parts: SharedParts) -> ModelFacts:
    """What its file holds: network, version, rate, precision, size."""
    voice = await _ready(parts, caller, model_id)
    wait = parts.settings.convert_timeout.total_seconds()
    facts = await parts.inference.call("GET", f"{_inside(voice)}/facts", timeout=wait)
    return ModelFacts.model_validate(facts)


@file_router.post(
    "/{model_id}/verify", operation_id="verify_model", summary="Try a voice", responses=problems(403, 404, 409, 429)
)
async def verify_model(model_id: str, caller: Creator, parts: SharedParts) -> VoiceCheck:
    """Checks its files against its card, loads it, and lets it say a test sound."""
    voice = await _ready(parts, caller, model_id, "voice.verified")
    wait = parts.settings.convert_timeout.total_seconds()
    return VoiceCheck.model_validate(await parts.inference.call("POST", f"{_inside(voice)}/verify", timeout=wait))


@file_router.post(
    "/{model_id}/convert",
    operation_id="convert_model",
    summary="A voice's file in another form",
    response_class=Response,
    responses=problems(403, 404, 409, 429) | _BINARY,
)
async def convert_model(model_id: str, body: ConvertRequest, caller: Creator, parts: SharedParts) -> Response:
    """The answer is the file; the voice itself stays as it is."""
    voice = await _ready(parts, caller, model_id, "voice.exported", form=body.form)
    return await file_of(parts, voice, body.form)


async def file_of(parts: Parts, voice: Voice, form: str) -> ForwardedResponse:
    """A file or archive that inference makes of a voice, streamed on. Raises as `forward`."""
    wait = parts.settings.convert_timeout.total_seconds()
    return await forward(parts.inference, "POST", f"{_inside(voice)}/files", json={"form": form}, timeout=wait)
