"""Of what is the preprocessor made?"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from libs.common.bus import Bus
from libs.common.connecting import ConnectingWorker, create_worker_service
from libs.common.events import PrepareDataset
from libs.common.health import WritableFolderCheck
from libs.common.paths import Paths
from libs.common.worker import Worker
from libs.voice.pitch_presence import absent_methods
from services.preprocessor.direct import router as direct_router
from services.preprocessor.handlers import Handlers
from services.preprocessor.settings import PreprocessorSettings


def create_app(settings: PreprocessorSettings | None = None, bus: Bus | None = None) -> FastAPI:
    """The preprocessor. A bus that is handed in stays open; one that is made here is closed at the end."""
    settings = settings or PreprocessorSettings()
    paths = Paths(settings)
    handlers = Handlers(settings, paths)

    def facts() -> dict[str, Any]:
        return {"f0_absent": absent_methods(paths.rmvpe), "has_hubert": paths.hubert.exists()}

    async def make(connected: Bus) -> Worker:
        worker = Worker(connected, settings, paths, slots=settings.preprocess_slots, info={"device": "cpu"}, look=facts)
        worker.on(PrepareDataset, handlers.on_prepare_dataset, handlers.show_prepared)
        return worker

    broker = ConnectingWorker(settings, "preprocessor", make, bus)

    return create_worker_service(
        "preprocessor",
        settings,
        [broker],
        checks=[WritableFolderCheck(paths.data_root, "data")],
        router=direct_router,
        prefixes=("/api/v1/preprocess/",),
        title="Voicewright preprocessor",
        description="Prepares datasets for training. The routes under /api/v1/preprocess are forwarded to the gateway.",
    )
