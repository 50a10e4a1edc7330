"""What did the workers say? Each event is applied exactly once, in the transaction that writes down its id."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from libs.common.bus import Bus, Delivery
from libs.common.errors import PlatformError, Unavailable, WorkFailed
from libs.common.events import Envelope, StepEvent, StepFailed
from libs.common.logs import bind_job, enter_trace, get_logger
from libs.common.storable import storable_problem, storable_text
from services.gateway.database import Database, utcnow
from services.gateway.jobs import lifecycle
from services.gateway.jobs.tables import Incoming

log = get_logger("jobs.inbox")

DURABLE = "gateway"
PAUSES = tuple(timedelta(seconds=s) for s in (0.5, 2, 10, 30))


UNSTORABLE = WorkFailed(
    "what the worker said holds values that the database does not take",
    actions=("Look for NUL or broken letters in the files and names that the job was given.", "Read the job's log."),
)


class Inbox:
    """Reads the stream of events; replicas share one durable consumer."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus

    async def run(self) -> None:
        """Endless: every event is applied and acknowledged, or given back when that failed."""
        async for delivery in self._bus.events(DURABLE):
            try:
                await self._handle(delivery)
            except Unavailable as error:
                # Not acknowledged: it comes again, and the inbox knows it.
                log.info("inbox.unacknowledged", error=error.detail)

    async def _handle(self, delivery: Delivery) -> None:
        try:
            envelope = delivery.envelope
            event = envelope.open()
        except ValueError as error:
            log.error("inbox.unreadable", subject=delivery.subject, error=str(error))
            verdict = _verdict_on(delivery, error)
            if verdict is not None:
                await self.receive(*verdict)
            await delivery.term()
            return
        if not isinstance(event, StepEvent):
            await delivery.ack()
            return
        enter_trace(envelope.traceparent)
        with bind_job(event.job_id):
            try:
                await self.receive(envelope.id, event)
            except asyncio.CancelledError:
                raise
            except Exception as error:
                is_known = isinstance(error, PlatformError)
                log.error(
                    "inbox.failed",
                    event_id=envelope.id,
                    error=f"{type(error).__name__}: {error}",
                    exc_info=not is_known,
                )
                await delivery.nak(PAUSES[min(delivery.deliveries, len(PAUSES)) - 1])
                return
        await delivery.ack()

    async def receive(self, event_id: str, event: StepEvent) -> bool:
        """Applies an event unless it was applied before; True when it changed something.

        What can never be applied fails the job with the reason: a job that waits for nothing helps nobody.
        """
        try:
            return await self._apply(event_id, event)
        except PlatformError as error:
            if error.retryable or isinstance(event, StepFailed):
                raise
            log.error("inbox.refused", event_id=event_id, code=error.code, detail=error.detail)
            return await self._apply(event_id, _failed(event, error))
        except Exception as error:
            if not _is_refused(error):
                raise
            log.error("inbox.unstorable", event_id=event_id, fact=event.fact, error=f"{type(error).__name__}: {error}")
            return await self._apply(event_id, _failed(event, UNSTORABLE))

    async def _apply(self, event_id: str, event: StepEvent) -> bool:
        try:
            async with self._database.write() as session:
                if await session.get(Incoming, event_id) is not None:
                    return False
                session.add(Incoming(event_id=event_id, job_id=event.job_id, received_at=utcnow()))
                await session.flush()
                return await lifecycle.apply(session, event)
        except IntegrityError:
            async with self._database.read() as session:
                if await session.get(Incoming, event_id) is not None:
                    return False  # another gateway was faster
            raise


def _failed(event: StepEvent, error: PlatformError) -> StepFailed:
    return StepFailed(
        job_id=event.job_id,
        step=event.step,
        attempt=event.attempt,
        token=event.token,
        worker=storable_text(event.worker),
        failures=0,
        problem=storable_problem(error.problem()),
    )


def _is_refused(error: Exception) -> bool:
    """Whether a database will never take the values, however often it is asked: NUL, half letters, numbers too big."""
    if isinstance(error, DataError | UnicodeError | OverflowError):
        return True
    if isinstance(error, DBAPIError):  # asyncpg's own classes come as the plain one, with the state of SQL
        state = getattr(error.orig, "sqlstate", None)
        return str(state).startswith("22") or isinstance(getattr(error.orig, "__cause__", None), ValueError)
    return isinstance(error, StatementError)


def _verdict_on(delivery: Delivery, error: ValueError) -> tuple[str, StepEvent] | None:
    """An event that cannot be read, as the failure of its step; None when it does not even say which step."""
    try:
        envelope = Envelope.model_validate(json.loads(delivery.raw))  # also with half letters somewhere in the data
        step = StepEvent.model_validate(envelope.data)
    except (ValueError, RecursionError):
        return None
    return envelope.id, _failed(step, WorkFailed(f"what the worker said cannot be read: {error}"[:1000]))
