"""Of what is ingest made?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common.bus import Bus
from libs.common.connecting import ConnectingWorker
from libs.common.events import ValidateDataset
from libs.common.health import StorageCheck, WritableFolderCheck
from libs.common.logs import get_logger
from libs.common.paths import Paths
from libs.common.refusal import EarlyRefusals
from libs.common.service import create_service
from libs.common.storage import Storage, open_storage
from libs.common.tasks import end
from libs.common.worker import Worker
from services.ingest import removing, staging
from services.ingest.api import Parts, router
from services.ingest.copies import Copies
from services.ingest.examiners import Examiners
from services.ingest.handlers import Handlers
from services.ingest.settings import IngestSettings
from services.ingest.uploads import Uploads

log = get_logger("ingest")


async def _sweep(settings: IngestSettings, paths: Paths) -> None:
    """Removes old left-overs, and goes on with removals that were cut short, at the start and then every hour."""
    while True:
        try:
            await asyncio.to_thread(removing.empty_trash, paths)
            removed = await asyncio.to_thread(staging.sweep, paths, settings.staging_ttl.total_seconds())
        except OSError as error:
            log.warning("staging.not_swept", error=str(error))
        else:
            log.info("staging.swept", count=len(removed))
        await asyncio.sleep(settings.sweep_every.total_seconds())


@asynccontextmanager
async def _running(task: asyncio.Task[None]) -> AsyncIterator[None]:
    """A task that ends with the block."""
    try:
        yield
    finally:
        await end([task])


def create_app(
    settings: IngestSettings | None = None, bus: Bus | None = None, storage: Storage | None = None
) -> FastAPI:
    """Ingest. A bus that is handed in stays open; one that is made here is closed at the end."""
    settings = settings or IngestSettings()
    paths = Paths(settings)
    examiners = Examiners(settings)
    storage = storage or open_storage(settings)
    copies = Copies(settings, paths, storage)
    handlers = Handlers(paths, examiners, copies)

    async def make(connected: Bus) -> Worker:
        worker = Worker(connected, settings, paths, slots=settings.validate_slots, info={"device": "cpu"})
        worker.on(ValidateDataset, handlers.on_validate_dataset)
        return worker

    broker = ConnectingWorker(settings, "ingest", make, bus)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        copies.start()
        sweeping = asyncio.create_task(_sweep(settings, paths), name="sweep")
        try:
            async with _running(sweeping), broker.running():
                yield
        finally:
            await examiners.close()
            await copies.close()

    app = create_service(
        "ingest",
        settings,
        routers=[router],
        lifespan=lifespan,
        checks=[broker, WritableFolderCheck(paths.uploads_dir, "uploads"), StorageCheck(storage)],
        title="Voicewright ingest",
        description="Receives, examines and keeps recordings. Called by the gateway only.",
    )
    app.add_middleware(EarlyRefusals)
    app.state.parts = Parts(settings, paths, Uploads(settings, paths, examiners), copies)
    return app
