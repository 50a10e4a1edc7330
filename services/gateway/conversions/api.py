"""What can be asked about conversion jobs?"""

from __future__ import annotations

from fastapi import Request, Response

from libs.common.jobs import JobKind
from services.gateway.accounts.current import Creator
from services.gateway.conversion.convert import ConversionOptions
from services.gateway.conversions import opening
from services.gateway.conversions.results_api import add_result_routes
from services.gateway.idempotency import reserved_id
from services.gateway.jobs.api import accepted, add_job_routes
from services.gateway.jobs.schemas import PRIORITY, JobOut
from services.gateway.openapi import FILE, TEXT, multipart
from services.gateway.parts import SharedParts
from services.gateway.routing import creates, problems, router, streams
from services.gateway.staging import receive

conversion_job_router = router("/convert", "conversion")

_FORM = multipart(
    {
        "voice": TEXT | {"description": "Id, slug or name of one of your voices"},
        "files": {"type": "array", "items": FILE, "description": "Recordings in any accepted format"},
        "sample_ids": TEXT | {"description": "And samples of one dataset, separated by commas"},
        "dataset_id": TEXT | {"description": "Or all samples of a dataset, by its id or slug"},
        "name": TEXT | {"description": "What to call the job"},
        "priority": {"type": "integer", "minimum": 0, "maximum": 100, "default": 50, "description": PRIORITY},
        **ConversionOptions.model_json_schema()["properties"],
    },
    required=("voice",),
)


@conversion_job_router.post(
    "/jobs",
    status_code=202,
    operation_id="start_conversion",
    summary="Convert long recordings, or many",
    dependencies=[creates, streams],
    responses=problems(403, 404, 409, 415, 507),
    openapi_extra=_FORM,
)
async def start_conversion(request: Request, response: Response, caller: Creator, parts: SharedParts) -> JobOut:
    """Queues a job over the recordings that are sent, or that datasets hold, with the parameters of `/convert`.

    One that cannot be converted fails alone, and the job says that its result is partial. The recordings that are sent
    are removed when the job is over, the results after CONVERSION_RESULTS_LIFETIME.
    """
    form = await receive(parts, request, parts.settings.upload_limit)
    job = await opening.start(parts, caller, form, reserved_id(request, "job"))
    return accepted(response, parts, job)


add_job_routes(conversion_job_router, JobKind.conversion, may_retry=False)
add_result_routes(conversion_job_router, JobKind.conversion, "recording")
