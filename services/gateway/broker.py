"""How does the gateway find its broker? In the background: people can sign in and read while the broker is away."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from libs.common.bus import Bus, without_secrets
from libs.common.errors import PlatformError
from libs.common.events import COMMANDS, Command
from libs.common.logs import get_logger
from libs.common.tasks import end
from services.gateway.parts import Parts

log = get_logger("gateway.broker")

_PAUSE = 1.0


@contextlib.asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Connects once the broker is there, makes streams and buckets, and disconnects at the end.

    A bus that was handed to the app is used as it is, and stays open.
    """
    if parts.connected is not None:
        parts.reached.set()
        yield
        return
    own: list[Bus] = []
    task = asyncio.create_task(_connect(parts, own), name="broker")
    try:
        yield
    finally:
        await end([task])
        for bus in own:
            await bus.close()


async def _connect(parts: Parts, own: list[Bus]) -> None:
    bus = await Bus.connect(parts.settings, "gateway")
    own.append(bus)
    while True:
        try:
            await bus.ensure_queues(sorted({c.service for c in COMMANDS if issubclass(c, Command)}))
            break
        except PlatformError as error:
            parts.absence = error.detail
            log.warning("broker.not_ready", detail=error.detail)
            await asyncio.sleep(_PAUSE)
    parts.connected = bus
    parts.reached.set()
    log.info("broker.connected", url=without_secrets(parts.settings.nats_url))
