"""How does a change in the database reach the bus? Messages are rows of the same transaction, and a relay sends them.

The order of one job's rows is the order of its messages; jobs do not wait for each other. A row is claimed, sent and
then marked, so a relay that dies in between sends it again: message ids, the inbox and the workers' manifests make
that harmless.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, event, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from libs.common.events import Command, Event, JobChanged, type_name
from libs.common.jobs import Lane
from libs.common.logs import current_traceparent
from services.gateway.jobs.tables import Outgoing
from services.gateway.jobs.turns import SHARED, Turn

COMMAND, EVENT, STATE, CONTROL, WITHDRAW = "command", "event", "state", "control", "withdraw"

_wakers: weakref.WeakSet[asyncio.Event] = weakref.WeakSet()


def waker() -> asyncio.Event:
    """An event that is set whenever a transaction of this process has left rows in the outbox."""
    made = asyncio.Event()
    _wakers.add(made)
    return made


def _wake(_: Session) -> None:
    for waiting in list(_wakers):
        waiting.set()


def _add(
    session: AsyncSession,
    job_id: str,
    kind: str,
    message_id: str,
    payload: dict[str, Any],
    at: datetime,
    lane: Lane | None,
) -> None:
    session.add(
        Outgoing(
            job_id=job_id,
            kind=kind,
            message_id=message_id,
            payload=payload,
            lane=lane.value if lane else None,
            created_at=at,
            not_before=at,
        )
    )
    _wake_afterwards(session)


def _wake_afterwards(session: AsyncSession) -> None:
    event.listen(session.sync_session, "after_commit", _wake, once=True)


def _typed(message: Command | Event | JobChanged) -> dict[str, Any]:
    typed = {"type": type_name(type(message)), "data": message.model_dump(mode="json")}
    trace = current_traceparent()  # the relay sends it later, and for somebody else
    return typed | ({"traceparent": trace} if trace else {})


def command(session: AsyncSession, message: Command, lane: Lane, at: datetime) -> None:
    """Asks a worker for a step: at once, or, for one that takes long, when it is its owner's turn (`give`)."""
    if message.step not in SHARED:
        _add(session, message.job_id, COMMAND, message.message_id, _typed(message), at, lane)
        return
    session.add(
        Turn(
            message_id=message.message_id,
            job_id=message.job_id,
            service=message.service,
            lane=lane.value,
            payload=_typed(message),
            asked_at=at,
        )
    )
    _wake_afterwards(session)


async def give(session: AsyncSession, message_ids: Sequence[str], at: datetime) -> None:
    """Asks the workers for what waited for its turn; what somebody else gave or took back meanwhile is left alone."""
    waiting = (Turn.message_id.in_(message_ids), Turn.given_at.is_(None))
    rows = {row.message_id: row for row in await session.scalars(select(Turn).where(*waiting).with_for_update())}
    for row in (rows[message_id] for message_id in message_ids if message_id in rows):
        _add(session, row.job_id, COMMAND, row.message_id, row.payload, at, Lane(row.lane))
        row.payload, row.given_at = {}, at


def fact(session: AsyncSession, message: Event, version: int, at: datetime) -> None:
    """Tells whoever listens. `version` is the job's, and makes the event's id."""
    _add(session, message.job_id, EVENT, f"{message.job_id}.{message.fact}.{version}", _typed(message), at, None)


def state(session: AsyncSession, message: JobChanged, at: datetime) -> None:
    """Tells the people who watch the job, and renews its projection."""
    _add(session, message.job_id, STATE, f"{message.job_id}.state.{message.version}", _typed(message), at, None)


def ask_to_stop(session: AsyncSession, job_id: str, version: int, at: datetime) -> None:
    """Sets `cancel.<job>`, which workers read before they start, while they work, and before they commit."""
    payload = {"key": f"cancel.{job_id}", "value": {"requested_at": at.isoformat()}}
    _add(session, job_id, CONTROL, f"{job_id}.cancel.{version}", payload, at, None)


def allow_again(session: AsyncSession, job_id: str, version: int, at: datetime) -> None:
    """Removes `cancel.<job>`, before the commands of a new attempt."""
    _add(session, job_id, CONTROL, f"{job_id}.allow.{version}", {"key": f"cancel.{job_id}", "value": None}, at, None)


async def withdraw(session: AsyncSession, job_id: str, message_id: str, version: int, at: datetime) -> None:
    """Takes a command back: a row that was not sent is dropped, a message that was sent is deleted from its stream.

    A relay that is sending the row just now finds it gone afterwards and deletes the message itself.
    """
    await session.execute(delete(Turn).where(Turn.message_id == message_id))
    row = (
        await session.scalars(select(Outgoing).where(Outgoing.message_id == message_id).with_for_update())
    ).one_or_none()
    if row is None:
        return
    if row.sent_at is None:
        await session.execute(delete(Outgoing).where(Outgoing.id == row.id))
    elif row.sequence is not None:
        _add(session, job_id, WITHDRAW, f"{job_id}.withdraw.{version}", {"sequence": row.sequence}, at, None)


async def forget(session: AsyncSession, message_id: str) -> None:
    """Drops a row, sent or not, so that the same message can be written anew."""
    await session.execute(delete(Turn).where(Turn.message_id == message_id))
    await session.execute(delete(Outgoing).where(Outgoing.message_id == message_id))


async def forget_positions(session: AsyncSession) -> None:
    """The stream that gave out the sequence numbers is gone: nothing may be taken back by them."""
    await session.execute(delete(Outgoing).where(Outgoing.kind == WITHDRAW, Outgoing.sent_at.is_(None)))
    await session.execute(update(Outgoing).where(Outgoing.sequence.is_not(None)).values(sequence=None))


async def unsent(session: AsyncSession, job_id: str | None = None) -> int:
    """How many messages (of one job) still wait to be sent."""
    query = select(func.count()).select_from(Outgoing).where(Outgoing.sent_at.is_(None))
    if job_id is not None:
        query = query.where(Outgoing.job_id == job_id)
    return int(await session.scalar(query) or 0)
