"""What can be asked about voices? Their public name is models (F-061)."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import Query, Response
from fastapi.responses import StreamingResponse

from services.gateway.accounts.current import Creator, CurrentUser
from services.gateway.audit import audit
from services.gateway.etags import IfMatch, etag
from services.gateway.openapi import binary
from services.gateway.paging import Page
from services.gateway.parts import SharedParts
from services.gateway.routing import problems, router
from services.gateway.voices import export, registry, removing
from services.gateway.voices.files_api import file_of
from services.gateway.voices.schemas import VoiceChange, VoiceDetail, VoiceOut, VoicePage
from services.gateway.voices.tables import VoiceStatus

voice_router = router("/models", "models")


@voice_router.get("", operation_id="list_models", summary="Your voices")
async def list_models(
    caller: CurrentUser,
    parts: SharedParts,
    paging: Page,
    status: Annotated[
        Literal["processing", "ready", "failed"] | None, Query(description="Those in this state alone")
    ] = None,
) -> VoicePage:
    """Newest first, page by page."""
    chosen = VoiceStatus(status) if status else None
    async with parts.database.read() as session:
        found = await registry.listing(session, caller, status=chosen, after=paging.after, limit=paging.asked)
    items, following = paging.cut(found)
    return VoicePage(items=[VoiceOut.of(row) for row in items], next_cursor=following)


@voice_router.get("/{model_id}", operation_id="get_model", summary="One voice", responses=problems(404))
async def get_model(model_id: str, caller: CurrentUser, parts: SharedParts, response: Response) -> VoiceDetail:
    """With its card: configuration, lineage, checksums, quality. By id or slug."""
    async with parts.database.read() as session:
        voice = await registry.find(session, caller, model_id)
    response.headers["ETag"] = etag(voice.id, voice.version)
    return VoiceDetail.of(voice)


@voice_router.patch(
    "/{model_id}", operation_id="change_model", summary="Rename or describe a voice", responses=problems(403, 404, 412)
)
async def change_model(
    model_id: str,
    body: VoiceChange,
    caller: Creator,
    parts: SharedParts,
    response: Response,
    if_match: IfMatch = None,
) -> VoiceDetail:
    """What is left out stays, and so does its slug."""
    async with parts.database.write() as session:
        voice = await registry.change(
            session, caller, model_id, name=body.name, description=body.description, if_match=if_match
        )
    response.headers["ETag"] = etag(voice.id, voice.version)
    return VoiceDetail.of(voice)


@voice_router.delete(
    "/{model_id}",
    operation_id="delete_model",
    summary="Delete a voice",
    status_code=204,
    responses=problems(403, 404, 409, 412),
)
async def delete_model(model_id: str, caller: Creator, parts: SharedParts, if_match: IfMatch = None) -> Response:
    """With all its versions. Refused while a job trains it."""
    await removing.remove(parts, caller, model_id, if_match)
    return Response(status_code=204)


@voice_router.get(
    "/{model_id}/export",
    operation_id="export_model",
    summary="Take a voice with you",
    response_class=StreamingResponse,
    responses=problems(404, 409, 429) | {200: binary("A zip with the voice and its index", "application/zip")},
)
async def export_model(
    model_id: str,
    caller: CurrentUser,
    parts: SharedParts,
    format: Annotated[
        Literal["zip", "voicewright", "rvc", "applio"],
        Query(description="`voicewright` (or `zip`) has the card and is taken in again without loss"),
    ] = "zip",
) -> Response:
    """In this platform's form with its card, or with the names and keys of RVC or Applio."""
    async with parts.database.read() as session:
        voice = await registry.find(session, caller, model_id)
    job_id = registry.expect_ready(voice)
    if format in ("rvc", "applio"):
        async with parts.database.write() as session:
            audit.record(session, caller.id, "voice.exported", voice.id, job_id=job_id, form=format)
        return await file_of(parts, voice, format)
    version = parts.paths.voice(voice.slug).version(job_id)
    files = await asyncio.to_thread(export.open_version, version)
    async with parts.database.write() as session:
        audit.record(session, caller.id, "voice.exported", voice.id, job_id=job_id)
    return StreamingResponse(
        export.zipped(voice.slug, files),
        media_type="application/zip",
        headers={"Content-Disposition": f'attachment; filename="{voice.slug}.zip"'},
    )
