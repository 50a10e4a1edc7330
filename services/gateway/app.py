"""Of what is the gateway made?"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from libs.common.bus import Bus
from libs.common.paths import Paths
from libs.common.refusal import EarlyRefusals
from libs.common.service import create_service
from libs.common.storage import Storage, open_storage
from services.gateway import broker, openapi, sweeper
from services.gateway.accounts.api import admin_router, auth_router, public_auth_router
from services.gateway.accounts.bootstrap import ensure_first_admin
from services.gateway.checks import DatabaseCheck, GatewayBrokerCheck
from services.gateway.conversion import api as conversion
from services.gateway.conversions import api as conversions
from services.gateway.database import Database
from services.gateway.datasets import api as datasets
from services.gateway.inner import InnerService
from services.gateway.jobs import api as jobs_api
from services.gateway.jobs import background as jobs
from services.gateway.live import api as live
from services.gateway.logbook.api import log_router
from services.gateway.panel.api import panel_router
from services.gateway.parts import Parts
from services.gateway.providers import api as providers
from services.gateway.settings import GatewaySettings
from services.gateway.speech import api as speech
from services.gateway.speech import jobs_api as speech_jobs
from services.gateway.speech.openai import openai_router
from services.gateway.system import api as system
from services.gateway.voices import api as voices
from services.gateway.voices import files_api as voice_files

# What each domain answers, and what it does in the background while the gateway runs.
ROUTERS: list[APIRouter] = [
    public_auth_router,
    auth_router,
    admin_router,
    log_router,
    datasets.dataset_router,
    datasets.sample_router,
    jobs_api.dataset_router,
    providers.provider_router,
    providers.estimate_router,
    jobs_api.training_router,
    panel_router,
    jobs_api.preprocess_router,
    jobs_api.model_job_router,
    voice_files.file_router,
    voices.voice_router,
    conversions.conversion_job_router,
    conversion.conversion_router,
    speech_jobs.speech_job_router,
    speech.speech_router,
    openai_router,
    live.live_router,
    system.system_router,
    system.version_router,
    system.root_router,
]
BACKGROUND: list[Callable[[Parts], AbstractAsyncContextManager[None]]] = [broker.running, sweeper.running, jobs.running]

# What a page may read of an answer beside its body.
EXPOSED_HEADERS = [
    "ETag",
    "Idempotent-Replayed",
    "Location",
    "Retry-After",
    "X-Characters-Left-Out",
    "X-Duration-Seconds",
    "X-Language",
    "X-Real-Time-Factor",
    "X-Request-Id",
    "X-Sample-Rate",
    "X-Voice-Sha256",
    "X-Voice-Version",
]


def create_app(
    settings: GatewaySettings | None = None,
    bus: Bus | None = None,
    database: Database | None = None,
    storage: Storage | None = None,
) -> FastAPI:
    """The gateway. What is handed in stays open; what is not is made from the settings, and closed at the end.

    The database must have been migrated: `python -m services.gateway.migrate`.
    """
    settings = settings or GatewaySettings()
    token = settings.service_token.get_secret_value()
    wait = settings.inner_timeout.total_seconds()
    parts = Parts(
        settings=settings,
        paths=Paths(settings),
        database=database or Database(settings),
        ingest=InnerService("ingest", settings.ingest_url, token, wait),
        inference=InnerService("inference", settings.inference_url, token, wait),
        storage=storage or open_storage(settings),
        connected=bus,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(parts.ingest.close)
            stack.push_async_callback(parts.inference.close)
            if database is None:
                stack.push_async_callback(parts.database.close)
            await ensure_first_admin(parts.database, settings)
            for background in BACKGROUND:
                await stack.enter_async_context(background(parts))
            yield

    app = create_service(
        "gateway",
        settings,
        routers=ROUTERS,
        lifespan=lifespan,
        checks=[DatabaseCheck(parts.database), GatewayBrokerCheck(parts)],
        public=True,
        title="Voicewright",
        description="Train voice models from recordings of voices that you have the right to use, and speak with them.",
    )
    app.add_middleware(EarlyRefusals)
    openapi.install(app)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "If-Match", "If-None-Match"],
            expose_headers=EXPOSED_HEADERS,
        )
    app.state.parts = parts
    return app
