"""Inference in this process, and as a process of its own."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from services.inference import batching
from services.inference.app import create_app
from services.inference.conversion import convert_pieces
from services.inference.settings import InferenceSettings
from tests.conftest import TOKEN, NatsServer
from tests.factories_audio import make_speech
from tests.integration.inference.voice_factory import Voices, stage
from tests.integration.voice_services.platform import Platform, platform
from tests.waiting import PATIENCE

Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
async def here(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(make_settings(nats_url=nats_server.url), nats_server, tmp_path / "said") as made:
        yield made


@pytest.fixture
def settings(make_settings: Callable[..., CommonSettings]) -> CommonSettings:
    return make_settings()


@pytest.fixture
def paths(settings: CommonSettings) -> Paths:
    return Paths(settings)


@pytest.fixture
def voices(paths: Paths, tmp_path: Path) -> Voices:
    return Voices(paths, tmp_path / "scratch")


@pytest.fixture
def speech(paths: Paths, tmp_path: Path) -> str:
    """A staged recording of two seconds."""
    return stage(paths, "upl_speech", make_speech(2.0, "en-us", tmp_path / "speech.wav"))


@pytest.fixture
def serve(settings: CommonSettings) -> Serve:
    """Inference with other settings than usual, as a client to it."""

    @asynccontextmanager
    async def serving(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        values = {"inference_threads": 1, "conversion_jobs_at_once": 0, **settings.model_dump(), **changes}
        app = create_app(InferenceSettings(**{k: v for k, v in values.items() if k in InferenceSettings.model_fields}))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=transport,
                base_url="http://inference",
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=120,
            ) as client,
        ):
            yield client

    return serving


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is cleared, conversions that have begun do not go on."""
    opened = threading.Event()
    opened.set()

    def convert(*given: Any, **more: Any) -> None:
        assert opened.wait(PATIENCE)
        convert_pieces(*given, **more)

    monkeypatch.setattr(batching, "convert_pieces", convert)
    yield opened
    opened.set()


@pytest.fixture
async def client(serve: Serve) -> AsyncIterator[httpx.AsyncClient]:
    async with serve() as client:
        yield client
