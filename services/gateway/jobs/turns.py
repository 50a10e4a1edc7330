"""Whose work is next? What takes long waits in the database until it is its owner's turn.

    outbox.command ─▶ turns ─ a few at a time ─▶ outbox ─▶ lanes of the broker ─▶ worker

In the broker's lanes the first to come is the first to be served: a hundred trainings of one person would hold up
everybody's. So only QUEUE_AHEAD commands of each service and lane wait there. As one of them is begun the next is
given: what has waited for AGED, else that of the person who has fewest in hand, else the oldest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ForeignKey, Index, String, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.jobs import ACTIVE, QueueState, Step
from services.gateway.database import Base
from services.gateway.jobs.tables import Job

SHARED = frozenset({Step.preprocess, Step.train})
"""Steps that take long enough for others to wait. What goes on with a job that a worker has begun is never held."""
AGED = timedelta(days=1)


class Turn(Base):
    """One command of a step of SHARED. Once it is given its `payload` is in the outbox, and here it is empty."""

    __tablename__ = "turns"
    __table_args__ = (
        Index(
            "ix_turns_waiting",
            "asked_at",
            sqlite_where=text("given_at IS NULL"),
            postgresql_where=text("given_at IS NULL"),
        ),
    )

    message_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    service: Mapped[str] = mapped_column(String(32))
    lane: Mapped[str] = mapped_column(String(16))
    payload: Mapped[dict[str, Any]]
    asked_at: Mapped[datetime]
    given_at: Mapped[datetime | None]


@dataclass(frozen=True)
class Asked:
    """A command that waits for its turn."""

    message_id: str
    owner: str
    service: str
    lane: str
    at: datetime


@dataclass(frozen=True)
class InHand:
    """A command that was given and is not over; `waits` while no worker has begun it."""

    owner: str
    service: str
    lane: str
    waits: bool


def choose(asked: Iterable[Asked], in_hand: Sequence[InHand], ahead: int, now: datetime) -> list[str]:
    """The message ids whose turn it is, in their order; all when `ahead` is 0."""
    oldest_first = sorted(asked, key=lambda one: (one.at, one.message_id))
    if ahead == 0:
        return [one.message_id for one in oldest_first]
    of_owner = Counter((one.service, one.owner) for one in in_hand)
    waiting_there = Counter((one.service, one.lane) for one in in_hand if one.waits)
    by_lane: dict[tuple[str, str], list[Asked]] = {}
    for one in oldest_first:
        by_lane.setdefault((one.service, one.lane), []).append(one)
    given: list[str] = []
    for lane, waiting in by_lane.items():
        for _ in range(min(ahead - waiting_there[lane], len(waiting))):
            turn = waiting[0]
            if now - turn.at < AGED:
                turn = min(waiting, key=lambda one: of_owner[one.service, one.owner])  # the first of the smallest
            waiting.remove(turn)
            of_owner[turn.service, turn.owner] += 1
            given.append(turn.message_id)
    return given


async def due(session: AsyncSession, ahead: int, now: datetime) -> list[str]:
    """The message ids of the commands whose turn it is."""
    asked = await session.execute(
        select(Turn.message_id, Job.owner_id, Turn.service, Turn.lane, Turn.asked_at)
        .join(Job, Job.id == Turn.job_id)
        .where(Turn.given_at.is_(None))
    )
    waiting = [Asked(*row) for row in asked.all()]
    return choose(waiting, await _in_hand(session), ahead, now) if waiting else []


async def _in_hand(session: AsyncSession) -> list[InHand]:
    """What was given and is not over: the present step of a job that goes on."""
    job = (Job.id, Job.owner_id, Job.phase, Job.attempt, Job.queue_state)
    given = await session.execute(
        select(Turn.message_id, Turn.service, Turn.lane, *job)
        .join(Job, Job.id == Turn.job_id)
        .where(Turn.given_at.is_not(None), Job.status.in_(ACTIVE))
    )
    return [
        InHand(owner, service, lane, queue_state == QueueState.waiting.value)
        for message_id, service, lane, job_id, owner, phase, attempt, queue_state in given.all()
        if message_id == f"{job_id}.{phase}.{attempt}"
    ]


async def held(session: AsyncSession) -> dict[tuple[str, str], int]:
    """How many commands wait for their turn, by service and lane."""
    lane = (Turn.service, Turn.lane)
    query = select(*lane, func.count()).where(Turn.given_at.is_(None)).group_by(*lane)
    return {(service, lane): count for service, lane, count in (await session.execute(query)).all()}
