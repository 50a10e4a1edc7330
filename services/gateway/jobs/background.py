"""What does the gateway do for jobs while nobody asks? Relay, inbox, progress, counters, once the broker is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from libs.common.logs import get_logger
from libs.common.tasks import end, together
from services.gateway.jobs import counting
from services.gateway.jobs.continuity import Continuity
from services.gateway.jobs.inbox import Inbox
from services.gateway.jobs.progress import ProgressWriter
from services.gateway.jobs.relay import Relay
from services.gateway.parts import Parts

log = get_logger("jobs.background")

PAUSE = 1.0


@contextlib.asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Works while the block runs; enter it after the broker's."""
    task = asyncio.create_task(_work(parts), name="jobs")
    try:
        yield
    finally:
        await end([task])


async def _work(parts: Parts) -> None:
    await parts.reached.wait()
    settings, database, bus = parts.settings, parts.database, parts.bus
    retries = len(settings.retry_delays)
    relay = Relay(
        database,
        bus,
        poll=settings.outbox_poll,
        max_retries=retries,
        claim=settings.outbox_claim,
        ahead=settings.queue_ahead,
    )
    inbox = Inbox(database, bus)
    progress = ProgressWriter(database, bus, settings.progress_write, retries)
    continuity = Continuity(database, bus, settings.broker_look, retries)
    await together(
        partial(_persist, "relay", relay.run),
        partial(_persist, "inbox", inbox.run),
        partial(_persist, "progress", progress.run),
        partial(_persist, "continuity", continuity.run),
        partial(_persist, "counters", partial(counting.run, parts)),
    )


async def _persist(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Begins again after an error that nobody foresaw: a job must not wait for a person to restart the gateway."""
    while True:
        try:
            await run()
        except Exception as error:
            log.error("background.failed", task=name, error=f"{type(error).__name__}: {error}", exc_info=error)
        await asyncio.sleep(PAUSE)
