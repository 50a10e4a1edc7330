"""How is a text said over HTTP? Whole, or piece by piece while it is made; one after the other, and some may wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from libs.audio.growing import GrowingSound
from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from libs.common.media_types import MEDIA_TYPES
from libs.voice.xtts.guards import Wave
from services.inference.counting import SPEECH, counted
from services.inference.queueing import ConversionQueue
from services.inference.schemas import SpeechFormat, SpeechRequest
from services.inference.speech import Speaking, Speech
from services.inference.speech_sound import at_rate, rate_of, whole_file

log = get_logger("speech")

LOOKS = 0.5
"""Seconds between two looks whether the caller is still there."""


class SpokenResponse(StreamingResponse):
    """Sends sound while it is made, and ends the making when the caller goes away."""

    def __init__(self, body: AsyncGenerator[bytes, None], media_type: str, headers: dict[str, str]) -> None:
        super().__init__(body, media_type=media_type, headers=headers)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._body):
            try:
                await super().__call__(scope, receive, send)
            except PlatformError as error:
                # A response that is left without its end is a connection that breaks: nobody takes it for the whole.
                log.warning("speech.broken_off", code=error.code, detail=error.detail)


def make_router(speaking: Speaking, queue: ConversionQueue) -> APIRouter:
    router = APIRouter(tags=["speech"])

    @router.post("/speech", operation_id="speak", summary="Say a text")
    async def post_speech(wanted: SpeechRequest, request: Request) -> Response:
        speech = await speaking.prepare(wanted)
        headers = {
            "X-Voice-Version": speech.version,
            "X-Voice-Sha256": speech.sha256,
            "X-Language": speech.wish.language,
            "X-Characters-Left-Out": str(speech.text.left_out),
            "X-Sample-Rate": str(rate_of(speech, wanted.format)),
        }
        if not wanted.stream:
            return await _whole(speaking, queue, speech, wanted.format, request, headers)
        sounds = _queued(speaking, queue, speech)
        first = asyncio.ensure_future(anext(sounds))  # what is refused until then is still a problem document
        if not await _there(request, first):
            await sounds.aclose()
            return Response(status_code=499)
        body = _encoded(first.result(), sounds, speech, wanted.format)
        return SpokenResponse(body, MEDIA_TYPES[wanted.format.value], headers)

    return router


async def _whole(
    speaking: Speaking,
    queue: ConversionQueue,
    speech: Speech,
    format: SpeechFormat,
    request: Request,
    headers: dict[str, str],
) -> Response:
    began = time.perf_counter()

    async def all_of_it() -> list[Wave]:
        async with aclosing(_queued(speaking, queue, speech)) as sounds:
            return [wave async for wave in sounds]

    task = asyncio.ensure_future(all_of_it())
    if not await _there(request, task):
        return Response(status_code=499)
    wave = np.concatenate(task.result())
    seconds = len(wave) / speech.sample_rate
    content = await asyncio.to_thread(whole_file, wave, speech, format)
    headers["X-Duration-Seconds"] = f"{seconds:.3f}"
    headers["X-Real-Time-Factor"] = f"{(time.perf_counter() - began) / max(seconds, 1e-3):.4f}"
    return Response(content, media_type=MEDIA_TYPES[format.value], headers=headers)


async def _there(request: Request, task: asyncio.Future[Any]) -> bool:
    """Waits for `task`; False when the caller went away before, and the task is ended."""
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOKS)
            if not task.done() and await request.is_disconnected():
                return False
        return True
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


async def _queued(speaking: Speaking, queue: ConversionQueue, speech: Speech) -> AsyncGenerator[Wave, None]:
    """The sounds of a speech once it is its turn. Raises Busy."""
    with counted("request", SPEECH) as told:
        samples, computed = 0, 0.0
        async with queue.place(), aclosing(speaking.sounds(speech)) as sounds:
            while True:
                started = time.perf_counter()
                wave = await anext(sounds, None)
                computed += time.perf_counter() - started
                if wave is None:
                    break
                samples += len(wave)
                yield wave
        told.done(samples / speech.sample_rate, computed)


async def _encoded(
    first: Wave, more: AsyncGenerator[Wave, None], speech: Speech, format: SpeechFormat
) -> AsyncGenerator[bytes, None]:
    """The bytes of a file while it grows. What fails now breaks the answer off: it is too late for another one."""
    sound = GrowingSound(rate_of(speech, format), format.value)
    async with aclosing(more):
        yield sound.write(at_rate(first, speech, format))
        async for wave in more:
            yield await asyncio.to_thread(sound.write, at_rate(wave, speech, format))
        yield sound.finish()
