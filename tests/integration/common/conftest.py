"""A worker's surroundings for one test: a real broker, a bus, folders."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from libs.common.bus import Bus
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from tests.conftest import NatsServer
from tests.hearing import Events, heard
from tests.integration.common.worker_processes import Processes
from tests.waiting import PATIENCE


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


@pytest.fixture
def processes(settings: CommonSettings, tmp_path: Path) -> Iterator[Processes]:
    found = Processes(settings, tmp_path / "trace.txt")
    yield found
    for process in found.all:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(PATIENCE)


@pytest.fixture
async def events(bus: Bus) -> AsyncIterator[Events]:
    async with heard(bus) as found:
        yield found
