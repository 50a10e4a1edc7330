"""How does the outbox get to the bus? In order for each job, at least once, by any number of gateways at once."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Select, delete, exists, select, update
from sqlalchemy.orm import aliased

from libs.common.bus import Bus
from libs.common.errors import MessageTooLarge, PlatformError, Unavailable
from libs.common.events import CATALOGUE, Command, Event, JobChanged, StepFailed
from libs.common.jobs import ACTIVE, Lane
from libs.common.logs import get_logger, within_trace
from services.gateway.database import Database, new_ulid, utcnow
from services.gateway.jobs import lifecycle, outbox, projection, turns
from services.gateway.jobs.tables import Incoming, Job, Outgoing

log = get_logger("jobs.relay")

BATCH = 50
IN_A_ROW = 3  # failures after which the broker counts as away
LONGEST_PAUSE = 5.0
KEEP_SENT = timedelta(days=7)
KEEP_RECEIVED = timedelta(days=31)  # one day longer than the stream keeps events
SWEEP_EVERY = timedelta(hours=1)


class Relay:
    """Sends what lies in the outbox. `poll` is how often it looks unasked; `claim` is after how long a silent relay's
    rows may be taken by another one, and must stay well below the streams' duplicate window of 120 s. `ahead` is how
    many commands of each service and lane wait at the broker, others in the database (turns.py); 0 for all."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        poll: timedelta,
        max_retries: int,
        claim: timedelta = timedelta(seconds=30),
        ahead: int = 0,
    ) -> None:
        self._database = database
        self._bus = bus
        self._poll = poll.total_seconds()
        self._claim = claim
        self._ahead = ahead
        self._max_retries = max_retries
        self._name = new_ulid()
        self._woken = outbox.waker()
        self._swept_at = datetime.min.replace(tzinfo=utcnow().tzinfo)

    async def run(self) -> None:
        """Endless; an error of one pass is logged, and the next pass tries again."""
        while True:
            self._woken.clear()
            try:
                while self._bus.is_connected and await self.drain():
                    pass
                await self._sweep()
            except (PlatformError, OSError) as error:
                log.warning("relay.interrupted", error=str(error))
            except Exception as error:
                log.error("relay.failed", error=f"{type(error).__name__}: {error}", exc_info=error)
            try:
                await asyncio.wait_for(self._woken.wait(), self._poll)
            except TimeoutError:
                pass

    async def drain(self) -> int:
        """One pass: gives turns, claims what is due, sends it, marks it. Returns how many messages were sent."""
        await self._give_turns()
        rows = await self._take()
        stopped: set[str] = set()
        sent: dict[int, int | None] = {}
        failed: dict[int, str] = {}
        failures = 0
        for row in rows:
            if row.job_id in stopped or failures >= IN_A_ROW:
                continue
            try:
                with within_trace(row.payload.get("traceparent")):
                    sent[row.id] = await self._send(row)
                failures = 0
            except Unavailable as error:
                # The broker is away, or the stream of commands is full: this job waits, others may go on.
                failed[row.id] = error.detail
                stopped.add(row.job_id)
                failures += 1
            except MessageTooLarge as error:
                log.error("relay.too_large", row=row.id, kind=row.kind, job_id=row.job_id, detail=error.detail)
                await self._fail(row, error)
                sent[row.id] = None
            except (ValueError, KeyError) as error:
                log.error("relay.unreadable", row=row.id, kind=row.kind, error=str(error))
                sent[row.id] = None
        if rows:
            await self._mark(rows, sent, failed)
        for job_id in {row.job_id for row in rows if row.kind == outbox.STATE and row.id in sent}:
            await self._project(job_id)
        return len(sent)

    async def _give_turns(self) -> None:
        """Puts the commands whose turn it is into the outbox."""
        now = utcnow()
        async with self._database.read() as session:  # without SQLite's one writing turn, which is seldom needed
            if not await turns.due(session, self._ahead, now):
                return
        async with self._database.write() as session:
            await outbox.give(session, await turns.due(session, self._ahead, now), now)

    # -- one pass ------------------------------------------------------------------------------------------------------

    def _due(self, now: datetime) -> Select[str]:
        """Jobs whose oldest unsent row is due and unclaimed; that row stands for the job's whole tail."""
        older = aliased(Outgoing)
        return (
            select(Outgoing.job_id)
            .where(
                Outgoing.sent_at.is_(None),
                Outgoing.not_before <= now,
                (Outgoing.claimed_until.is_(None)) | (Outgoing.claimed_until < now),
                ~exists().where(older.job_id == Outgoing.job_id, older.sent_at.is_(None), older.id < Outgoing.id),
            )
            .order_by(Outgoing.id)
            .limit(BATCH)
            .with_for_update(skip_locked=True, of=Outgoing)
        )

    async def _take(self) -> list[Outgoing]:
        """Claims the unsent rows of some jobs, in their order."""
        now = utcnow()
        async with self._database.read() as session:
            # A look without a lock: an idle relay does not take SQLite's one writing turn every second.
            waiting = select(Outgoing.id).where(Outgoing.sent_at.is_(None), Outgoing.not_before <= now).limit(1)
            if await session.scalar(waiting) is None:
                return []
        async with self._database.write() as session:
            jobs = list((await session.scalars(self._due(now))).all())
            if not jobs:
                return []
            unsent = (Outgoing.job_id.in_(jobs), Outgoing.sent_at.is_(None))
            rows = list((await session.scalars(select(Outgoing).where(*unsent).order_by(Outgoing.id))).all())
            await session.execute(
                update(Outgoing)
                .where(Outgoing.id.in_([row.id for row in rows]))
                .values(claimed_by=self._name, claimed_until=now + self._claim, tries=Outgoing.tries + 1)
                .execution_options(synchronize_session=False)
            )
            session.expunge_all()
            return rows

    async def _send(self, row: Outgoing) -> int | None:
        """Hands one message to the bus; returns its stream sequence where it has one. Raises Unavailable."""
        payload = row.payload
        match row.kind:
            case outbox.CONTROL:
                bucket = self._bus.bucket("control")
                if payload["value"] is None:
                    await bucket.delete(payload["key"])
                else:
                    await bucket.put(payload["key"], json.dumps(payload["value"]).encode())
                return None
            case outbox.WITHDRAW:
                await self._bus.delete_command(int(payload["sequence"]))
                return None
        message = CATALOGUE[payload["type"]].model_validate(payload["data"])
        if isinstance(message, Command):
            return await self._bus.send_command(message, Lane(row.lane or Lane.normal))
        if isinstance(message, JobChanged):
            return await self._bus.publish_state(message, message_id=row.message_id)
        assert isinstance(message, Event)
        return await self._bus.publish_event(message, event_id=row.message_id)

    async def _fail(self, row: Outgoing, error: MessageTooLarge) -> None:
        """A step that can never be asked for fails its job with the reason; other words are not worth a job."""
        if row.kind != outbox.COMMAND:
            return
        command = CATALOGUE[row.payload["type"]].model_validate(row.payload["data"])
        assert isinstance(command, Command)
        problem = _too_many(command, error).problem()
        verdict = StepFailed(
            job_id=command.job_id, step=command.step, attempt=command.attempt, failures=0, problem=problem
        )
        async with self._database.write() as session:
            await lifecycle.apply(session, verdict)

    async def _mark(self, rows: list[Outgoing], sent: dict[int, int | None], failed: dict[int, str]) -> None:
        """Writes down what was sent, gives back what was not, and withdraws what was cancelled in the meantime."""
        now = utcnow()
        gone: list[int] = []
        async with self._database.write() as session:
            for row in rows:
                values: dict[str, Any] = {"claimed_by": None, "claimed_until": None}
                if row.id in sent:
                    values |= {"sent_at": now, "sequence": sent[row.id], "last_error": None}
                elif row.id in failed:
                    pause = min(0.25 * 2.0 ** min(row.tries, 10), LONGEST_PAUSE)
                    values |= {"not_before": now + timedelta(seconds=pause), "last_error": failed[row.id]}
                found = await session.execute(
                    update(Outgoing)
                    .where(Outgoing.id == row.id, Outgoing.sent_at.is_(None))
                    .values(**values)
                    .returning(Outgoing.id)
                )
                sequence = sent.get(row.id)
                if found.first() is not None or row.kind != outbox.COMMAND or sequence is None:
                    continue
                if await session.get(Outgoing, row.id) is None:
                    gone.append(sequence)
        for sequence in gone:
            log.info("relay.withdrawn", sequence=sequence)
            await self._bus.delete_command(sequence)

    async def _project(self, job_id: str) -> None:
        try:
            await projection.renew(self._database, self._bus, job_id, self._max_retries)
        except PlatformError as error:
            log.warning("relay.projection_behind", job_id=job_id, error=error.detail)

    async def _sweep(self) -> None:
        """Forgets rows that can no longer matter."""
        now = utcnow()
        if now - self._swept_at < SWEEP_EVERY:
            return
        self._swept_at = now
        async with self._database.write() as session:
            await session.execute(delete(Outgoing).where(Outgoing.sent_at < now - KEEP_SENT))
            await session.execute(delete(Incoming).where(Incoming.received_at < now - KEEP_RECEIVED))
            over = select(Job.id).where(Job.status.not_in(ACTIVE))
            await session.execute(delete(turns.Turn).where(turns.Turn.job_id.in_(over)))


def _too_many(command: Command, error: MessageTooLarge) -> MessageTooLarge:
    """The same in the words of people, who count recordings and not bytes."""
    count, size, limit = len(getattr(command, "inputs", ())), error.extra.get("size"), error.extra.get("limit")
    if not count or not size or not limit:
        return error
    return MessageTooLarge(
        f"the step {command.step} of this job has {count} recordings, and a job can have about "
        f"{count * limit // size} here",
        field="dataset_id",
        actions=(
            "Use fewer and longer recordings: join short ones, or make several datasets.",
            "An administrator may raise max_payload of the message broker.",
        ),
        recordings=count,
        size=size,
        limit=limit,
    )
