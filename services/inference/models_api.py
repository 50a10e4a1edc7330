"""What can inference be asked about the files of voices? What is in them, whether they work, their other forms."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import FileResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask

from libs.common.errors import PlatformError, ProviderUnavailable, TryAgain
from libs.common.paths import Paths, VoiceVersion
from libs.common.processes import in_child
from libs.voice.xtts.saying import Speaks
from libs.voice.xtts.trying import try_published
from services.inference import models
from services.inference.queueing import ConversionQueue
from services.inference.voices import Voices


class FileRequest(BaseModel):
    """The form that is wanted."""

    form: Literal["rvc", "applio", "voicewright", "fp16", "fp32", "safetensors"]


async def _in_child(queue: ConversionQueue, call: Any, *arguments: object) -> Any:
    """The call in a process of its own, a few at a time. Raises Busy, and what the call raises."""
    async with queue.place():
        try:
            return await in_child(call, *arguments)
        except TryAgain as again:
            raise again.error from again


async def _spoken(place: VoiceVersion, kind: str, speaks: Speaks, result: dict[str, Any]) -> dict[str, Any]:
    """`result` of a voice that speaks, when it was heard; a voice that lives with its provider is not asked there."""
    try:
        if kind != "xtts":
            raise ProviderUnavailable(
                f"the voice is spoken by {kind}, and this platform asks only XTTS for speech", field="voice"
            )
        card = await asyncio.to_thread(models.read_card, place)
        sound = await try_published(speaks, place.folder, place.weights.name, card)
    except ProviderUnavailable as error:  # nothing is wrong with the voice
        return result | {"usable": False, "problems": [error.problem()]}
    except PlatformError as error:
        if error.retryable:
            raise
        return {"valid": False, "usable": False, "problems": [error.problem()]}
    return result | {"usable": True, "peak": sound["peak"], "level_db": sound["level_db"]}


def make_router(paths: Paths, voices: Voices, queue: ConversionQueue, speaks: Speaks) -> APIRouter:
    router = APIRouter(prefix="/voices/{slug}/versions/{version}", tags=["models"])

    @router.get("/facts", operation_id="facts", summary="What is in a voice's file")
    async def get_facts(slug: str, version: str) -> dict[str, Any]:
        found: dict[str, Any] = await _in_child(
            queue, models.facts, models.find_version(paths, slug, version, elsewhere=True)
        )
        return found

    @router.post("/verify", operation_id="verify", summary="Try a voice")
    async def verify(slug: str, version: str) -> dict[str, Any]:
        """Besides the files, whether this installation has what the voice needs: a content encoder, or coqui-tts."""
        place = models.find_version(paths, slug, version, elsewhere=True)
        kind = await asyncio.to_thread(models.kind_of, place)
        if kind != "rvc":
            result: dict[str, Any] = await _in_child(queue, models.check_files, place)
            result = await _spoken(place, kind, speaks, result) if result["valid"] else {**result, "usable": False}
            return result | {"problems": paths.places.hidden(result["problems"])}
        result = await _in_child(queue, models.check, place)
        usable, width = result["valid"], result.pop("content_width", None)
        if usable:
            try:
                await asyncio.to_thread(voices.check_encoder, models.read_card(place), width)
            except PlatformError as error:
                usable = False
                result["problems"].append(error.problem())
        return result | {"usable": usable, "problems": paths.places.hidden(result["problems"])}

    @router.post("/files", operation_id="write_file", summary="A voice in another form", response_class=FileResponse)
    async def write_file(slug: str, version: str, wanted: FileRequest) -> FileResponse:
        place = models.find_version(paths, slug, version)
        name = models.file_name(slug, wanted.form)
        folder = Path(tempfile.mkdtemp(prefix="voicewright-"))
        try:
            await _in_child(queue, models.write_file, place, wanted.form, folder / name)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        kind = "application/zip" if name.endswith(".zip") else "application/octet-stream"
        drop = BackgroundTask(shutil.rmtree, folder, ignore_errors=True)
        return FileResponse(folder / name, media_type=kind, filename=name, background=drop)

    return router
