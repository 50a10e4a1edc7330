"""How does a worker come to its work? It takes commands while it has free slots, leases the step, runs the handler."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from libs.common import tracing
from libs.common.bus import Bus, CommandQueue, Delivery
from libs.common.errors import Cancelled, LeaseLost, PlatformError, Preempted, TryAgain, Unavailable, WorkFailed
from libs.common.events import CATALOGUE, Command, Envelope, StepFailed, StepStarted, type_name
from libs.common.jobs import Lane, Step
from libs.common.leases import Committed, Finished, Held
from libs.common.logs import bind_job, enter_trace
from libs.common.metrics import LEASES_HELD, LEASES_TAKEN_OVER, QUEUE_WAIT, WORK_SECONDS, WORK_TOTAL
from libs.common.paths import Paths
from libs.common.processes import end_children
from libs.common.settings import CommonSettings, ScaledSettings
from libs.common.tasks import end
from libs.common.work import Done, Work, volumes_named
from libs.common.worker.concluding import Concluding
from libs.common.worker.keeping import Keeping
from libs.common.worker.telling import FinishHook, Registered, log

C = TypeVar("C", bound=Command)
POISON_AFTER = 2  # equal deliveries without progress


class Worker(Concluding, Keeping):
    """Takes commands of one service while there are free slots, and sees each through to its end."""

    def __init__(
        self,
        bus: Bus,
        settings: CommonSettings,
        paths: Paths,
        *,
        slots: int,
        info: dict[str, Any],
        look: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        """`slots` commands at a time. It announces `info`, and what `look` finds here each time that it does so."""
        super().__init__(bus, settings, paths)
        self._slots = slots
        self._info = info
        self._look = look
        self._handlers: dict[str, Registered] = {}
        self._queues: list[CommandQueue] = [bus.commands(lane) for lane in Lane]
        self._running: dict[asyncio.Task[None], Work[Any] | None] = {}
        self._main: list[asyncio.Task[None]] = []
        self._taken = 0
        self._limit = settings.worker_commands if isinstance(settings, ScaledSettings) else 0
        self._idle = settings.worker_idle.total_seconds() if isinstance(settings, ScaledSettings) else 0.0
        self.has_enough = asyncio.Event()  # set when it has taken as many commands as it should, and they are done
        for step in Step:
            LEASES_TAKEN_OVER.labels(step.value)  # there from the start: the first death would otherwise be no increase

    def on(
        self, command: type[C], handler: Callable[[Work[C]], Awaitable[Done]], finish: FinishHook | None = None
    ) -> None:
        """Registers a command's handler. `finish(command, manifest, revision)` runs after the commit, perhaps twice."""
        self._handlers[type_name(command)] = Registered(command, handler, finish)

    @property
    def jobs_in_hand(self) -> list[str]:
        return [work.command.job_id for work in self._running.values() if work is not None]

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._main = [
            asyncio.create_task(self._take_commands(), name="worker.take"),
            asyncio.create_task(self._announce(), name="worker.announce"),
        ]

    async def drain(self) -> None:
        """Takes nothing new, lets running work save itself and go back to the queue, and says good-bye."""
        self._draining.set()
        for work in self._running.values():
            if work is not None:
                work.end("preempt")
        if self._running:
            log.info("worker.draining", jobs=self.jobs_in_hand)
            _, late = await asyncio.wait(list(self._running), timeout=self._settings.drain_timeout.total_seconds())
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=2)
        await end(self._main)
        end_children()
        with contextlib.suppress(PlatformError):
            await self.bus.bucket("workers").delete(self.id)

    async def _announce(self) -> None:
        """Keeps this worker in KV `workers`, whose entries fade when nobody renews them."""
        bucket = self.bus.bucket("workers")
        while not self._draining.is_set():
            with contextlib.suppress(PlatformError, OSError):
                entry = {
                    "service": self.bus.service,
                    "worker": self.id,
                    "slots": self._slots,
                    "jobs": self.jobs_in_hand,
                    "seen_at": time.time(),
                    **self._info,
                    **self._look(),
                }
                await bucket.put(self.id, json.dumps(entry).encode())
            await asyncio.sleep(self._settings.worker_ttl.total_seconds() / 3)

    async def _take_commands(self) -> None:
        latest = time.monotonic()
        while not self._draining.is_set():
            if self._running:
                latest = time.monotonic()
            if len(self._running) >= self._slots or (self._running and self._has_taken_all()):
                await asyncio.wait(list(self._running), return_when=asyncio.FIRST_COMPLETED)
                continue
            if self._has_taken_all() or (self._limit and time.monotonic() - latest > self._idle):
                log.info("worker.enough", taken=self._taken)
                self.has_enough.set()
                return
            try:
                delivery = await self._next()
            except Unavailable:
                await asyncio.sleep(0.5)
                continue
            except Exception as error:
                # Whatever it is, a worker that stops asking and still says that it is ready would be worse.
                log.error("worker.asking_failed", error=f"{type(error).__name__}: {error}", exc_info=error)
                await asyncio.sleep(1.0)
                continue
            if delivery is None:
                continue
            if self._draining.is_set():
                with contextlib.suppress(Unavailable):
                    await delivery.nak()
                return
            self._taken += 1
            task = asyncio.create_task(self._see_through(delivery), name="worker.command")
            self._running[task] = None
            task.add_done_callback(self._forget)

    def _has_taken_all(self) -> bool:
        return 0 < self._limit <= self._taken

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("worker.failed", error=f"{type(error).__name__}: {error}", exc_info=error)

    async def _next(self) -> Delivery | None:
        """The oldest command of the highest lane that has one."""
        for queue in self._queues:
            if (delivery := await queue.take(self._settings.poll_interval)) is not None:
                return delivery
        return None

    # -- one command --------------------------------------------------------------------------------------------------

    async def _see_through(self, delivery: Delivery) -> None:
        try:
            envelope, command, registered = self._open(delivery)
        except ValueError as error:
            await self._unreadable(delivery, error)
            return
        if delivery.deliveries == 1:
            QUEUE_WAIT.labels(command.step.value, _lane(delivery)).observe(_age(envelope))
        enter_trace(envelope.traceparent)
        about = {"voicewright_job__id": command.job_id, "messaging_destination_name": delivery.subject}
        with (
            bind_job(command.job_id, step=command.step.value),
            tracing.span(f"work {command.step.value}", "consumer", envelope.traceparent, **about) as span,
        ):
            try:
                await self._work(delivery, command, registered, span)
            except Unavailable as error:
                self._taken -= 1
                # The broker is away: nothing was acknowledged, so the command comes again.
                span.failed(error.detail)
                log.warning("worker.interrupted", error=error.detail)

    def _open(self, delivery: Delivery) -> tuple[Envelope, Command, Registered]:
        envelope = delivery.envelope
        if envelope.type not in CATALOGUE or envelope.type not in self._handlers:
            raise ValueError(f"{envelope.type!r} is no command of {self.bus.service}")
        command = envelope.open()
        assert isinstance(command, Command)
        return envelope, command, self._handlers[envelope.type]

    async def _work(self, delivery: Delivery, command: Command, registered: Registered, span: tracing.Span) -> None:
        steps = self.paths.experiment(command.experiment).step(command.job_id, command.step)
        after = max(command.after_token, await asyncio.to_thread(steps.latest_token))
        claim = await self._leases.acquire(command.job_id, command.step, command.attempt, after)
        if isinstance(claim, Held):
            self._taken -= 1  # it is another worker's
            await delivery.nak(timedelta(seconds=max(claim.seconds, 0.05)))
            return
        if isinstance(claim, Committed):
            reopened = await self._conclude_again(delivery, command, registered, claim)
            if reopened is None:
                return
            claim = reopened
        if isinstance(claim, Finished):
            await self._tell(StepFailed, command, 0, failures=claim.failures, problem=claim.problem)
            await delivery.ack()
            return
        if claim.record.stalls >= POISON_AFTER:
            await self._poison(delivery, command, claim)
            return
        if await self._is_cancelled(command.job_id):
            await self._cancelled(delivery, command, claim)
            return
        work: Work[Any] = Work(command, claim, steps, self.id)
        self._running[asyncio.current_task()] = work  # type: ignore[index]  # it runs inside its own task
        if self._draining.is_set():
            work.end("preempt")
        started = time.monotonic()
        keepers = [
            asyncio.create_task(self._keep_alive(work, delivery), name="worker.alive"),
            asyncio.create_task(self._send_progress(work), name="worker.progress"),
            asyncio.create_task(self._watch_control(work), name="worker.control"),
        ]
        outcome = "done"
        held = LEASES_HELD.labels(command.step.value)
        held.inc()
        try:
            await self._tell(StepStarted, command, claim.token)
            done = await self._run(registered, work)
            # Everything that may take long happens before the last look at the control bucket.
            reference = await self._write_manifest(work, done)
            if await self._is_cancelled(command.job_id):
                raise Cancelled
            await self._keep_trying(lambda: claim.commit(reference))
            revision = claim.revision
            await self._conclude(delivery, command, registered, reference, revision)
        except Cancelled:
            outcome = "cancelled"
            await self._cancelled(delivery, command, claim)
        except Preempted:
            outcome = "preempted"
            await claim.release()
            await delivery.nak()
            log.info("worker.preempted")
        except LeaseLost:
            outcome = "lost"
            log.warning("worker.lease_lost", token=claim.token)
        except Unavailable as error:
            outcome = "interrupted"
            raise error
        except TryAgain as again:
            outcome = "retry"
            await self._failed(delivery, command, claim, again.error, retryable=True)
        except PlatformError as error:
            outcome = "failed"
            await self._failed(delivery, command, claim, error, retryable=error.retryable)
        except asyncio.CancelledError:
            outcome = "interrupted"
            raise
        except Exception as error:
            outcome = "failed"
            log.error("worker.unexpected", error=f"{type(error).__name__}: {error}", exc_info=error)
            failure = WorkFailed(f"{type(error).__name__}: {error}")
            await self._failed(delivery, command, claim, failure, retryable=False)
        finally:
            work.is_over = True
            await end(keepers)
            held.dec()
            span.set(voicewright_outcome=outcome)
            if outcome == "failed":
                span.failed("the log of the job says why")
            WORK_TOTAL.labels(command.step.value, outcome).inc()
            WORK_SECONDS.labels(command.step.value).observe(time.monotonic() - started)

    async def _run(self, registered: Registered, work: Work[Any]) -> Done:
        """The handler; a part of the platform that is away becomes a retry."""
        try:
            with volumes_named():
                return await registered.handler(work)
        except Unavailable as error:
            raise TryAgain(error) from error


def _lane(delivery: Delivery) -> str:
    """The lane that a command came by; the queue's filter lets no other word through."""
    return delivery.subject.rpartition(".")[2]


def _age(envelope: Envelope) -> float:
    """Seconds since a message was sent; clocks of two nodes may differ, and nothing is younger than now."""
    sent = envelope.time if envelope.time.tzinfo else envelope.time.replace(tzinfo=UTC)
    return max((datetime.now(UTC) - sent).total_seconds(), 0.0)
