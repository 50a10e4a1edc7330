"""What can be asked about what a job made that makes a sound of each input? The same of every such kind."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from fastapi.responses import StreamingResponse

from libs.common.jobs import JobKind
from libs.common.media_types import MEDIA_TYPES
from libs.common.ranges import RangedFile
from services.gateway.accounts.current import Caller, Creator, CurrentUser
from services.gateway.conversions import removing, results
from services.gateway.conversions.schemas import ConversionResults
from services.gateway.jobs import reading
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.openapi import binary
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import problems
from services.gateway.zips import zip_of

Number = Annotated[int, Path(ge=1, le=1_000_000, description="As the job's results list it")]

_SOUND: dict[int | str, dict[str, Any]] = {
    200: binary(
        "The sound; a zip of all sounds for a job of several",
        *sorted(set(MEDIA_TYPES.values())),
        "application/zip",
    ),
    206: {"description": "The range of a single sound that was asked for"},
}


def add_result_routes(routes: APIRouter, kind: JobKind, one: str) -> None:
    """The results of jobs of `kind`, whose inputs people call `one`: "recording", "text"."""
    name = kind.value

    @routes.get(
        "/jobs/{job_id}/results",
        operation_id=f"{name}_job_results",
        summary=f"What became of each {one}",
        responses=problems(404),
    )
    async def job_results(job_id: str, caller: CurrentUser, parts: SharedParts) -> ConversionResults:
        """State, length and, where there is no sound, the reason, for each of them; also while the job goes on."""
        job, step = await _found(parts, caller, kind, job_id)
        lifetime = parts.settings.conversion_results_lifetime
        return await asyncio.to_thread(results.listing, parts.paths, job, step, lifetime)

    @routes.get(
        "/jobs/{job_id}/result",
        operation_id=f"{name}_job_result",
        summary="The sound, or a zip of all",
        response_class=Response,
        responses=problems(404, 409, 410, 416) | _SOUND,
    )
    async def job_result(job_id: str, caller: CurrentUser, parts: SharedParts) -> Response:
        """The sound of a job with one input (ranges are understood); of several, a zip of those that were made."""
        job, found = await _sounds(parts, caller, kind, job_id)
        if len(job.sounding) == 1:
            return _file(found[0])
        return StreamingResponse(
            zip_of((sound.name, sound.path.open("rb")) for sound in found),
            media_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{job.id}.zip"'},
        )

    @routes.get(
        "/jobs/{job_id}/results/{number}",
        operation_id=f"{name}_job_sound",
        summary=f"The sound of one {one}",
        response_class=Response,
        responses=problems(404, 409, 410, 416) | _SOUND,
    )
    async def job_sound(job_id: str, number: Number, caller: CurrentUser, parts: SharedParts) -> Response:
        """One of a job's sounds; ranges are understood."""
        _, found = await _sounds(parts, caller, kind, job_id)
        return _file(results.pick(found, number))

    @routes.delete(
        "/jobs/{job_id}",
        operation_id=f"delete_{name}_job",
        summary="Remove a job that is over, with its results",
        status_code=204,
        responses=problems(403, 404, 409),
    )
    async def delete_job(job_id: str, caller: Creator, parts: SharedParts) -> Response:
        """Refused while the job goes on."""
        await removing.remove(parts, caller, kind, job_id)
        return Response(status_code=204)


async def _found(parts: Parts, caller: Caller, kind: JobKind, job_id: str) -> tuple[Job, JobStep | None]:
    async with parts.database.read() as session:
        job = await reading.find(session, caller, kind, job_id)
        return job, await session.get(JobStep, (job.id, results.step_of(kind).value))


async def _sounds(parts: Parts, caller: Caller, kind: JobKind, job_id: str) -> tuple[Job, list[results.Sound]]:
    job, step = await _found(parts, caller, kind, job_id)
    lifetime = parts.settings.conversion_results_lifetime
    return job, await asyncio.to_thread(results.sounds, parts.paths, job, step, lifetime)


def _file(sound: results.Sound) -> RangedFile:
    return RangedFile(sound.path, media_type=sound.media_type, filename=sound.name)
