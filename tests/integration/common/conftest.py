"""A worker's surroundings for one test: a real broker, a bus, folders."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from libs.common.bus import Bus
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from tests.conftest import NatsServer


@pytest.fixture
def settings(nats_server: NatsServer, make_settings: Callable[..., CommonSettings]) -> CommonSettings:
    return make_settings(nats_url=nats_server.url)


@pytest.fixture
def paths(settings: CommonSettings) -> Paths:
    return Paths(settings)


@pytest.fixture
async def bus(settings: CommonSettings) -> AsyncIterator[Bus]:
    """The preprocessor's bus, with all streams made."""
    bus = await Bus.connect(settings, "preprocessor")
    await bus.ensure()
    yield bus
    await bus.close()
