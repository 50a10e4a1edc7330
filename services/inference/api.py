"""What can be asked of inference? A conversion, and the list of voices that are there."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from fastapi import APIRouter, Request, Response

from libs.common.errors import Cancelled, InvalidName, VoiceSampleNotFound
from libs.common.paths import Paths
from services.inference.conversion import Converted, convert
from services.inference.queueing import ConversionQueue
from services.inference.schemas import MEDIA_TYPES, ConversionRequest
from services.inference.settings import InferenceSettings
from services.inference.voices import Voices


def staged_recording(paths: Paths, upload_id: str) -> Path:
    """The original of a staged upload. Raises VoiceSampleNotFound."""
    try:
        original = paths.staged_upload(upload_id).original
    except InvalidName as error:
        raise VoiceSampleNotFound(f"there is no upload {upload_id!r}", field="upload_id") from error
    if not original.is_file():
        raise VoiceSampleNotFound(f"there is no upload {upload_id}", field="upload_id")
    return original


def make_router(settings: InferenceSettings, paths: Paths, voices: Voices, queue: ConversionQueue) -> APIRouter:
    router = APIRouter(tags=["conversion"])

    @router.post("/conversions", operation_id="convert", summary="Convert a staged recording")
    async def post_conversion(wanted: ConversionRequest, request: Request) -> Response:
        source = staged_recording(paths, wanted.upload_id)
        async with queue.place():
            if await request.is_disconnected():  # it may have waited long
                return Response(status_code=499)
            stop = threading.Event()
            work = asyncio.create_task(asyncio.to_thread(_run, source, wanted, stop))
            try:
                while not work.done():
                    await asyncio.wait({work}, timeout=0.5)
                    if not work.done() and await request.is_disconnected():
                        stop.set()
            except asyncio.CancelledError:
                stop.set()
                raise
            try:
                converted = work.result()
            except Cancelled:
                return Response(status_code=499)
        return Response(
            converted.content,
            media_type=MEDIA_TYPES[wanted.format],
            headers={
                "X-Voice-Version": converted.version,
                "X-Voice-Sha256": converted.sha256,
                "X-Duration-Seconds": f"{converted.seconds:.3f}",
                "X-Sample-Rate": str(converted.sample_rate),
                "X-Real-Time-Factor": f"{converted.compute_seconds / max(converted.seconds, 1e-3):.4f}",
            },
        )

    def _run(source: Path, wanted: ConversionRequest, stop: threading.Event) -> Converted:
        return convert(
            source,
            voices.get(wanted.voice),
            wanted,
            limit_seconds=settings.conversion_limit.total_seconds(),
            should_stop=stop.is_set,
        )

    return router
