"""What happens to a job while somebody watches? Server-sent events whose ids are the stream's sequence numbers.

    snapshot (id = newest sequence, job as the database has it) ▶ progress/state in the stream's order ▶ terminal state

A client that comes back with `Last-Event-ID` gets what followed that id; when the stream does not reach back so far,
a snapshot again. The newest sequence is read before the row, so whatever the snapshot does not hold follows it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from libs.common.bus import Bus
from libs.common.errors import NotFound, PlatformError
from libs.common.events import Envelope, JobChanged, StepProgress
from libs.common.jobs import JobKind, overall_progress, steps_of
from services.gateway.database import Database
from services.gateway.jobs import outbox
from services.gateway.jobs.schemas import JobOut
from services.gateway.jobs.tables import Job, Outgoing

COMMENT = b": still here\n\n"
CLOCKS = timedelta(minutes=1)


@dataclass(frozen=True)
class Start:
    """Where a feed begins: after sequence `after`, with `snapshot` first unless it resumes; `head` was newest then."""

    job_id: str
    kind: JobKind
    after: int
    head: int
    snapshot: dict[str, Any] | None
    is_over: bool
    preset: str = ""


async def begin(database: Database, bus: Bus, job_id: str, last_id: int | None, max_retries: int) -> Start | None:
    """Where to begin for a client that has seen `last_id`; None when it has seen everything there will be.

    Raises Unavailable when the broker is away, NotFound without such a job.
    """
    head, newest = await bus.feed_head(job_id)
    async with database.read() as session:
        job = await session.get(Job, job_id)
        if job is None:
            raise NotFound(f"there is no job {job_id!r}")
        is_told = await outbox.unsent(session, job_id) == 0
    is_over = job.is_over and is_told and (await bus.feed_head(job_id))[0] == head
    if last_id == head and (is_over or _is_terminal(newest)):
        return None
    if is_over and last_id and _is_terminal(await bus.feed_message(job_id, last_id)):
        return None  # what follows the end that the client knows is the same end again
    if last_id is not None and last_id <= head and await bus.feed_holds(job_id, last_id):
        return Start(job_id, job.job_kind, last_id, head, None, is_over=False, preset=job.preset)
    snapshot = {"job": JobOut.of(job, max_retries).model_dump(mode="json"), "sequence": head}
    return Start(job_id, job.job_kind, head, head, snapshot, is_over, job.preset)


async def frames(
    database: Database, bus: Bus, start: Start, heartbeat: timedelta, closing: asyncio.Event
) -> AsyncIterator[bytes]:
    """The feed as the wire has it; a comment when nothing happened for `heartbeat`.

    Ends after the terminal event, and when `closing` is set: the client comes back with its last id, to whoever serves.
    """
    yield b"retry: 1000\n\n"
    if start.snapshot is not None:
        yield _frame(start.head, "snapshot", start.snapshot)
    if start.is_over:
        return
    last, told = start.after, 0
    gone = asyncio.Event()
    messages = bus.feed(start.job_id, start.after, until=gone)
    waiting = asyncio.ensure_future(anext(messages))
    leaving = asyncio.ensure_future(closing.wait())
    try:
        while not closing.is_set():
            await asyncio.wait(
                {waiting, leaving}, timeout=heartbeat.total_seconds(), return_when=asyncio.FIRST_COMPLETED
            )
            if closing.is_set():
                return
            if not waiting.done():
                if await _has_ended(database, bus, start.job_id, last):
                    return
                yield COMMENT
                continue
            try:
                sequence, envelope = waiting.result()
            except StopAsyncIteration:
                return  # the gateway is closing: the client comes back with its last id
            waiting = asyncio.ensure_future(anext(messages))
            last = sequence
            message = _opened(envelope)
            if isinstance(message, StepProgress):
                yield _frame(sequence, "progress", _progress(message, start.kind, start.preset))
            elif isinstance(message, JobChanged):
                is_known = message.version <= told
                if not told and start.snapshot is None:
                    is_known = await _was_told(database, bus, start, envelope.id)
                told = max(told, message.version)
                if is_known:
                    continue  # the outbox sent it twice, longer apart than the broker remembers
                yield _frame(sequence, "state", message.model_dump(mode="json") | {"status": message.state.value})
                if message.is_terminal and sequence >= start.head:
                    return
    finally:
        gone.set()
        leaving.cancel()
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration, PlatformError):
            await waiting
        close = getattr(messages, "aclose", None)
        if close is not None:
            await close()


async def _was_told(database: Database, bus: Bus, start: Start, message_id: str) -> bool:
    """Whether a client that came back had this message before it left, from an earlier sending.

    No copy is older than the outbox's row; a minute is allowed for clocks that differ.
    """
    async with database.read() as session:
        written = await session.scalar(select(Outgoing.created_at).where(Outgoing.message_id == message_id))
    since = written - CLOCKS if written is not None else None
    try:
        return await bus.feed_has(start.job_id, message_id, start.after, since)
    except PlatformError:
        return False  # the broker is away: twice is better than not at all


async def _has_ended(database: Database, bus: Bus, job_id: str, last: int) -> bool:
    """Whether nothing can follow `last`: the job is over, all was sent, and nothing newer is in the stream."""
    async with database.read() as session:
        job = await session.get(Job, job_id)
        if job is not None and (not job.is_over or await outbox.unsent(session, job_id)):
            return False
    try:
        return (await bus.feed_head(job_id))[0] <= last
    except PlatformError:
        return False


def _opened(envelope: Envelope) -> object:
    try:
        return envelope.open()
    except ValueError:
        return None  # of a newer version; whoever watches is not served by an error


def _is_terminal(envelope: Envelope | None) -> bool:
    message = _opened(envelope) if envelope is not None else None
    return isinstance(message, JobChanged) and message.is_terminal


def _progress(message: StepProgress, kind: JobKind, preset: str) -> dict[str, Any]:
    data = message.model_dump(mode="json")
    if message.step in steps_of(kind, preset):
        data["progress"] = overall_progress(kind, message.step, message.fraction, preset)
    return data


def _frame(sequence: int, name: str, data: dict[str, Any]) -> bytes:
    return f"id: {sequence}\nevent: {name}\ndata: {json.dumps(data, separators=(',', ':'))}\n\n".encode()
