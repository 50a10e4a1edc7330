"""Of what is the trainer made?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.bus import Bus
from libs.common.connecting import ConnectingWorker, create_worker_service
from libs.common.events import BuildIndex, CheckSpeech, EvaluateVoice, MakeVoice, PublishVoice, TrainVoice
from libs.common.health import Check, StorageCheck, WritableFolderCheck
from libs.common.paths import Paths
from libs.common.service import create_service
from libs.common.storage import Storage, open_storage
from libs.common.worker import Worker
from services.trainer.direct import OPEN_PREFIXES
from services.trainer.direct import router as direct_router
from services.trainer.handlers import Handlers
from services.trainer.hardware import Device
from services.trainer.model_handlers import ModelHandlers
from services.trainer.providers.choosing import Providers
from services.trainer.providers.google import GoogleProvider
from services.trainer.providers.openai import OpenAIProvider
from services.trainer.providers.protocol import SpeechProvider
from services.trainer.providers.rvc import RvcProvider
from services.trainer.providers.xtts import XttsProvider
from services.trainer.settings import TrainerSettings
from services.trainer.team import Member


def create_member(settings: TrainerSettings, paths: Paths, checks: list[Check]) -> FastAPI:
    """A node that takes no command: it joins the trainings of node 0."""
    member = Member(settings, paths)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with member.running():
            yield

    return create_service(
        "trainer",
        settings,
        routers=[],
        lifespan=lifespan,
        checks=[*checks, member],
        title="Voicewright trainer, one of several nodes",
        description="Joins the trainings of node 0.",
    )


def create_app(
    settings: TrainerSettings | None = None, bus: Bus | None = None, storage: Storage | None = None
) -> FastAPI:
    """The trainer. A bus that is handed in stays open; one that is made here is closed at the end."""
    settings = settings or TrainerSettings()
    paths = Paths(settings)
    store = storage or open_storage(settings)
    device = Device(settings.training_device)
    checks: list[Check] = [
        WritableFolderCheck(paths.data_root, "data"),
        WritableFolderCheck(paths.models_root, "models"),
        StorageCheck(store),
        device,
    ]
    kinds: list[Callable[[TrainerSettings, Paths], SpeechProvider]] = [XttsProvider, GoogleProvider, OpenAIProvider]
    speaking = [kind(settings, paths) for kind in kinds]
    providers = Providers(RvcProvider(settings, paths), speaking)
    checks.append(providers)
    handlers = Handlers(settings, paths, store, providers)
    models = ModelHandlers(settings, paths, store)

    async def make(connected: Bus) -> Worker | None:
        if not await device.look():
            return None  # another node may do the work
        await providers.look()
        slots = settings.training_concurrency
        worker = Worker(connected, settings, paths, slots=slots, info=device.facts, look=providers.facts)
        worker.on(CheckSpeech, handlers.on_check_speech)
        worker.on(TrainVoice, handlers.on_train_voice, handlers.show_training)
        worker.on(BuildIndex, handlers.on_build_index)
        worker.on(EvaluateVoice, handlers.on_evaluate_voice)
        worker.on(PublishVoice, handlers.on_publish_voice, handlers.serve_version)
        return worker

    async def make_for_models(connected: Bus) -> Worker:
        """Takes what needs seconds and no device, so that it never waits behind trainings, which take hours."""
        worker = Worker(connected, settings, paths, slots=settings.model_jobs_at_once, info={"device": "cpu"})
        worker.on(MakeVoice, models.on_make_voice, models.serve_version)
        return worker

    if settings.training_node:
        return create_member(settings, paths, [*checks[:1], device])
    workers = []
    if settings.training_concurrency:
        workers.append(ConnectingWorker(settings, "trainer", make, bus))
    if settings.model_jobs_at_once:
        workers.append(ConnectingWorker(settings, MakeVoice.service, make_for_models))

    return create_worker_service(
        "trainer",
        settings,
        workers,
        checks=checks,
        router=direct_router,
        prefixes=OPEN_PREFIXES,
        title="Voicewright trainer",
        description="Trains voices. /api/v1/trainer/…, /train and /training-jobs are forwarded to the gateway.",
    )
