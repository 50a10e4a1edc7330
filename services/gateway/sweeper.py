"""What is left over? Swept at the start and every SWEEP_EVERY: old answers, half-received recordings, old tokens."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from sqlalchemy.exc import SQLAlchemyError

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from libs.common.tasks import end
from services.gateway import idempotency
from services.gateway.accounts import sessions
from services.gateway.conversions import removing as conversions
from services.gateway.datasets import receiving, removing
from services.gateway.jobs import tidying
from services.gateway.live import tickets
from services.gateway.parts import Parts
from services.gateway.voices import removing as voices

log = get_logger("gateway.sweeper")


async def _samples(parts: Parts) -> None:
    await receiving.repair(parts)


async def _deletions(parts: Parts) -> None:
    await removing.finish(parts)
    await voices.finish(parts)


async def _conversions(parts: Parts) -> None:
    await conversions.sweep(parts)


async def _ended_jobs(parts: Parts) -> None:
    await tidying.sweep(parts)


async def _answers(parts: Parts) -> None:
    await idempotency.sweep(parts.database, parts.settings)


async def _tokens(parts: Parts) -> None:
    await sessions.sweep(parts.database, parts.settings)
    await tickets.sweep(parts)


SWEEPS: list[Callable[[Parts], Awaitable[None]]] = [_answers, _tokens, _samples, _deletions, _conversions, _ended_jobs]


async def sweep(parts: Parts) -> None:
    """Every sweep once; one that fails is logged, and tried again at the next turn."""
    for one in SWEEPS:
        try:
            await one(parts)
        except (PlatformError, SQLAlchemyError) as error:
            log.warning("sweep.failed", sweep=one.__name__, error=str(error))
        except Exception as error:  # nobody foresaw it; the other sweeps go on, and so does the next turn
            log.error("sweep.failed", sweep=one.__name__, error=f"{type(error).__name__}: {error}", exc_info=error)


async def _repeat(parts: Parts) -> None:
    while True:
        await sweep(parts)
        await asyncio.sleep(parts.settings.sweep_every.total_seconds())


@contextlib.asynccontextmanager
async def running(parts: Parts) -> AsyncIterator[None]:
    """Sweeps while the block runs."""
    task = asyncio.create_task(_repeat(parts), name="sweeper")
    try:
        yield
    finally:
        await end([task])
