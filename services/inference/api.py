"""What can be asked of inference? A conversion, and the list of voices that are there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request, Response

from libs.common.errors import Cancelled, InvalidName, VoiceSampleNotFound
from libs.common.media_types import MEDIA_TYPES
from libs.common.paths import Paths
from services.inference.batching import Batches
from services.inference.schemas import ConversionRequest

LOOKS = 0.5
"""Seconds between two looks whether the caller is still there."""


def staged_recording(paths: Paths, upload_id: str) -> Path:
    """The original of a staged upload. Raises VoiceSampleNotFound."""
    try:
        original = paths.staged_upload(upload_id).original
    except InvalidName as error:
        raise VoiceSampleNotFound(f"there is no upload {upload_id!r}", field="upload_id") from error
    if not original.is_file():
        raise VoiceSampleNotFound(f"there is no upload {upload_id}", field="upload_id")
    return original


def make_router(paths: Paths, batches: Batches) -> APIRouter:
    router = APIRouter(tags=["conversion"])

    @router.post("/conversions", operation_id="convert", summary="Convert a staged recording")
    async def post_conversion(wanted: ConversionRequest, request: Request) -> Response:
        source = staged_recording(paths, wanted.upload_id)
        with batches.ticket(source, wanted) as ticket:
            while not ticket.result.done():
                await asyncio.wait({ticket.result}, timeout=LOOKS)
                if not ticket.result.done() and await request.is_disconnected():
                    return Response(status_code=499)
            try:
                converted = ticket.result.result()
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

    return router
