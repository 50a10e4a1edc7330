"""Of what is inference made?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import torch
from fastapi import FastAPI

from libs.common.bus import Bus
from libs.common.connecting import ConnectingWorker
from libs.common.events import ConvertRecordings, SayTexts
from libs.common.health import Check, ReadableCheck
from libs.common.paths import Paths
from libs.common.service import create_service
from libs.common.worker import Worker
from libs.voice.pitch_presence import absent_methods
from libs.voice.xtts.process import SpeakingProcess
from libs.voice.xtts.saying import Speaks
from services.inference import models_api, speech_api
from services.inference.api import make_router
from services.inference.batching import Batches
from services.inference.handlers import Handlers
from services.inference.live_api import LiveSessions, make_live_router
from services.inference.queueing import ConversionQueue
from services.inference.settings import InferenceSettings
from services.inference.speech import Speaking
from services.inference.voices import EnginesCheck, Voices


def create_app(
    settings: InferenceSettings | None = None, bus: Bus | None = None, speaks: Speaks | None = None
) -> FastAPI:
    """Inference. A bus that is handed in stays open; one that is made here is closed at the end.

    Only jobs need the broker. It is no part of readiness: a conversion that somebody waits for is done without it.
    """
    settings = settings or InferenceSettings()
    paths = Paths(settings)
    device = settings.inference_device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    voices = Voices(paths, capacity=settings.voices_in_memory, device=device, compiling=settings.inference_compile)
    process = SpeakingProcess(
        settings.xtts_python,
        device=device,
        threads=settings.inference_threads,
        voices=settings.speech_voices_in_memory,
        idle=settings.speech_idle.total_seconds(),
        limit=settings.speech_piece_limit.total_seconds(),
    )
    speaking = Speaking(settings, paths, speaks or process, voices)
    checks: list[Check] = [
        ReadableCheck(paths.data_root, "data"),
        ReadableCheck(paths.models_root, "models"),
        EnginesCheck(voices),
    ]

    texts = ConversionQueue(1, settings.speech_waiting, "texts")
    handlers = Handlers(paths, voices, speaking, texts)

    def facts() -> dict[str, Any]:
        return {"f0_absent": absent_methods(paths.rmvpe)}

    async def make(connected: Bus) -> Worker:
        worker = Worker(
            connected, settings, paths, slots=settings.conversion_jobs_at_once, info={"device": device}, look=facts
        )
        worker.on(ConvertRecordings, handlers.on_convert_recordings)
        worker.on(SayTexts, handlers.on_say_texts)
        return worker

    broker = ConnectingWorker(settings, "inference", make, bus)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.inference_threads is not None:
            torch.set_num_threads(settings.inference_threads)
        paths.data_root.mkdir(parents=True, exist_ok=True)
        try:
            async with broker.running() if settings.conversion_jobs_at_once else nullcontext():
                yield
        finally:
            await process.close()

    return create_service(
        "inference",
        settings,
        routers=[
            make_router(paths, Batches(settings, voices)),
            speech_api.make_router(speaking, texts),
            make_live_router(settings, voices, LiveSessions(settings.live_sessions)),
            models_api.make_router(paths, voices, ConversionQueue(1, settings.conversions_waiting), speaks or process),
        ],
        lifespan=lifespan,
        checks=checks,
        title="Voicewright inference",
        description="Converts recordings with trained voices, and has voices speak.",
    )
