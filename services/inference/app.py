"""Of what is inference made?"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import torch
from fastapi import FastAPI

from libs.common.health import Check, ReadableCheck
from libs.common.paths import Paths
from libs.common.service import create_service
from services.inference.api import make_router
from services.inference.queueing import ConversionQueue
from services.inference.settings import InferenceSettings
from services.inference.voices import EnginesCheck, Voices


def create_app(settings: InferenceSettings | None = None) -> FastAPI:
    """Inference needs no broker: it reads voices from the models volume and recordings from the data volume."""
    settings = settings or InferenceSettings()
    paths = Paths(settings)
    device = settings.inference_device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    voices = Voices(paths, capacity=settings.voices_in_memory, device=device)
    queue = ConversionQueue(settings.conversions_at_once, settings.conversions_waiting)
    checks: list[Check] = [
        ReadableCheck(paths.data_root, "data"),
        ReadableCheck(paths.models_root, "models"),
        EnginesCheck(voices),
    ]

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if settings.inference_threads is not None:
            torch.set_num_threads(settings.inference_threads)
        paths.data_root.mkdir(parents=True, exist_ok=True)
        yield

    return create_service(
        "inference",
        settings,
        routers=[make_router(settings, paths, voices, queue)],
        lifespan=lifespan,
        checks=checks,
        title="Voicewright inference",
        description="Converts recordings with trained voices.",
    )
