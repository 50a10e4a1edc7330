"""What can be asked about conversion jobs?"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Path, Request, Response
from fastapi.responses import StreamingResponse

from libs.common.jobs import JobKind, Step
from libs.common.ranges import RangedFile
from services.gateway.accounts.current import Caller, Creator, CurrentUser
from services.gateway.conversion.convert import ConversionOptions
from services.gateway.conversions import opening, removing, results
from services.gateway.conversions.schemas import ConversionResults
from services.gateway.idempotency import reserved_id
from services.gateway.jobs import reading
from services.gateway.jobs.api import accepted, add_job_routes
from services.gateway.jobs.schemas import PRIORITY, JobOut
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.openapi import FILE, TEXT, binary, multipart
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import creates, problems, router, streams
from services.gateway.staging import receive
from services.gateway.zips import zip_of

conversion_job_router = router("/convert", "conversion")

Number = Annotated[int, Path(ge=1, le=1_000_000, description="Of the recording, as the job's results list it")]

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
_SOUND: dict[int | str, dict[str, Any]] = {
    200: binary(
        "The sound; a zip of all sounds for a job of several recordings",
        *sorted(set(results.MEDIA_TYPES.values())),
        "application/zip",
    ),
    206: {"description": "The range of a single sound that was asked for"},
}


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


@conversion_job_router.get(
    "/jobs/{job_id}/results",
    operation_id="conversion_job_results",
    summary="What became of each recording",
    responses=problems(404),
)
async def conversion_results(job_id: str, caller: CurrentUser, parts: SharedParts) -> ConversionResults:
    """State, length and, where there is no sound, the reason, for each recording; also while the job goes on."""
    job, step = await _found(parts, caller, job_id)
    return await asyncio.to_thread(results.listing, parts.paths, job, step, parts.settings.conversion_results_lifetime)


@conversion_job_router.get(
    "/jobs/{job_id}/result",
    operation_id="conversion_job_result",
    summary="The converted sound, or a zip of all",
    response_class=Response,
    responses=problems(404, 409, 410, 416) | _SOUND,
)
async def conversion_result(job_id: str, caller: CurrentUser, parts: SharedParts) -> Response:
    """The sound of a job of one recording (ranges are understood); of several, a zip of those that were converted."""
    job, found = await _sounds(parts, caller, job_id)
    if len(job.recordings) == 1:
        return _file(found[0])
    return StreamingResponse(
        zip_of((sound.name, sound.path.open("rb")) for sound in found),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{job.id}.zip"'},
    )


@conversion_job_router.get(
    "/jobs/{job_id}/results/{number}",
    operation_id="conversion_job_sound",
    summary="The sound of one recording",
    response_class=Response,
    responses=problems(404, 409, 410, 416) | _SOUND,
)
async def conversion_sound(job_id: str, number: Number, caller: CurrentUser, parts: SharedParts) -> Response:
    """One of a job's sounds; ranges are understood."""
    _, found = await _sounds(parts, caller, job_id)
    return _file(results.pick(found, number))


@conversion_job_router.delete(
    "/jobs/{job_id}",
    operation_id="delete_conversion_job",
    summary="Remove a job that is over, with its results",
    status_code=204,
    responses=problems(403, 404, 409),
)
async def delete_job(job_id: str, caller: Creator, parts: SharedParts) -> Response:
    """Refused while the job goes on."""
    await removing.remove(parts, caller, job_id)
    return Response(status_code=204)


async def _found(parts: Parts, caller: Caller, job_id: str) -> tuple[Job, JobStep | None]:
    async with parts.database.read() as session:
        job = await reading.find(session, caller, JobKind.conversion, job_id)
        return job, await session.get(JobStep, (job.id, Step.convert.value))


async def _sounds(parts: Parts, caller: Caller, job_id: str) -> tuple[Job, list[results.Sound]]:
    job, step = await _found(parts, caller, job_id)
    lifetime = parts.settings.conversion_results_lifetime
    return job, await asyncio.to_thread(results.sounds, parts.paths, job, step, lifetime)


def _file(sound: results.Sound) -> RangedFile:
    return RangedFile(sound.path, media_type=sound.media_type, filename=sound.name)
