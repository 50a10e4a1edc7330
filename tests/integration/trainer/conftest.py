"""The real service on a real broker, for one test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from libs.common.settings import CommonSettings
from tests.conftest import NatsServer
from tests.integration.voice_services.platform import Platform, platform


@pytest.fixture
async def here(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> AsyncIterator[Platform]:
    async with platform(make_settings(nats_url=nats_server.url), nats_server, tmp_path / "said") as made:
        yield made
