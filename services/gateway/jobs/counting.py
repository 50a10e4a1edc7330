"""What does the gateway know that Prometheus should? Jobs, queues, streams, workers and its own outbox, looked at."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

from sqlalchemy import func, select

from libs.common import metrics
from libs.common.errors import PlatformError, Unavailable
from libs.common.events import COMMANDS, Command
from libs.common.jobs import TERMINAL, JobKind, Lane
from libs.common.logs import get_logger
from services.gateway.database import utcnow
from services.gateway.jobs import budget, reading, turns
from services.gateway.jobs.tables import Outgoing
from services.gateway.parts import Parts

log = get_logger("jobs.counting")

EVERY = timedelta(seconds=5)
SERVICES = sorted({message.service for message in COMMANDS if issubclass(message, Command)})

BROKERS = (metrics.QUEUE, metrics.WORKERS, metrics.STREAM_MESSAGES, metrics.STREAM_BYTES, metrics.STREAM_LIMIT)


async def run(parts: Parts) -> None:
    """Endless. While the broker is away its figures are taken back: an old one would be a lie."""
    for kind in JobKind:
        for ended in TERMINAL:
            metrics.JOB_SECONDS.labels(kind.value, ended.value)  # at 0: the first one would otherwise be no increase
    while True:
        await count_jobs(parts)
        try:
            await count_broker(parts)
        except PlatformError as error:
            log.debug("counting.without_broker", detail=error.detail)
            for gauge in BROKERS:
                gauge.clear()
        await asyncio.sleep(EVERY.total_seconds())


async def count_jobs(parts: Parts) -> None:
    """Jobs by state, what of the budget is taken, and what waits in the outbox."""
    async with parts.database.read() as session:
        counts = await reading.statistics(session, None)
        unsent = select(func.count(), func.min(Outgoing.created_at)).where(Outgoing.sent_at.is_(None))
        number, oldest = (await session.execute(unsent)).one()
        taken = await budget.spent_within_a_day(session)
        held = await turns.held(session)
    limit = budget.limits_of(parts.settings).day
    metrics.BUDGET_TAKEN.set(taken)
    metrics.BUDGET_LIMIT.set(math.nan if limit is None else limit)
    for state in ("waiting", "active", "delayed"):
        metrics.JOBS.labels(state).set(getattr(counts, state))
    for ended in TERMINAL:
        metrics.JOBS.labels(ended.value).set(getattr(counts, ended.value))
    for service in SERVICES:
        for lane in Lane:
            metrics.QUEUE.labels(service, lane.value, "held").set(held.get((service, lane.value), 0))
    metrics.OUTBOX_UNSENT.set(number)
    metrics.OUTBOX_AGE.set(max((utcnow() - oldest).total_seconds(), 0.0) if oldest else 0.0)


async def count_broker(parts: Parts) -> None:
    """Queues, streams and workers; raises Unavailable."""
    if not parts.bus.is_connected:  # at once, and not after the pause that a question may take
        raise Unavailable("the message broker is not connected")
    for consumer, depth in (await parts.bus.queue_depths()).items():
        service, _, lane = consumer.rpartition("-")
        for state, commands in depth.items():
            metrics.QUEUE.labels(service, lane, state).set(commands)
    for stream, size in (await parts.bus.stream_sizes()).items():
        metrics.STREAM_MESSAGES.labels(stream).set(size.messages)
        metrics.STREAM_BYTES.labels(stream).set(size.bytes)
        if size.limit is not None:
            metrics.STREAM_LIMIT.labels(stream).set(size.limit)
    names = await parts.bus.bucket("workers").entries()
    for service in SERVICES:  # a service of which nobody is left is told as 0
        metrics.WORKERS.labels(service).set(sum(name.split("-")[0] == service for name in names))
