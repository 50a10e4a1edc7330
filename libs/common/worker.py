"""How is a command worked on? Lanes, leases, heartbeats, retries and poison, the same for every service.

A service registers one handler per command. The handler is given `Work`, makes files under `work.folder`, and returns
`Done`; the runtime alone commits, publishes and acknowledges:

    take ▶ lease ▶ StepStarted ▶ handler ▶ manifest ▶ commit (compare-and-set) ▶ finish hook ▶ event ▶ ack

Whatever dies in between, the command comes again: an uncommitted step is done anew by the next owner, which may take
over finished parts of earlier attempts; a committed step only repeats the finish hook and the event, both idempotent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from libs.common import manifests
from libs.common.bus import Bus, CommandQueue, Delivery
from libs.common.errors import (
    Cancelled,
    Conflict,
    LeaseLost,
    PlatformError,
    PoisonCommand,
    Preempted,
    TryAgain,
    Unavailable,
    WorkFailed,
)
from libs.common.events import (
    CATALOGUE,
    Command,
    Envelope,
    Event,
    ManifestRef,
    StepCancelled,
    StepDelayed,
    StepEvent,
    StepFailed,
    StepFinished,
    StepStarted,
    type_name,
)
from libs.common.jobs import Lane
from libs.common.leases import Committed, Finished, Held, Lease, Leases
from libs.common.logs import bind_job, enter_trace, get_logger
from libs.common.metrics import WORK_SECONDS, WORK_TOTAL
from libs.common.paths import Paths
from libs.common.processes import end_children
from libs.common.settings import CommonSettings
from libs.common.work import Done, Work, volumes_named

log = get_logger("worker")

C = TypeVar("C", bound=Command)
POISON_AFTER = 2  # equal deliveries without progress

Handler = Callable[[Work[Any]], Awaitable[Done]]
FinishHook = Callable[[Any, manifests.Manifest, int], Awaitable[None]]  # the number grows from commit to commit


@dataclass(frozen=True)
class _Registered:
    command: type[Command]
    handler: Handler
    finish: FinishHook | None


class Worker:
    """Takes commands of one service while there are free slots, and sees each through to its end."""

    def __init__(self, bus: Bus, settings: CommonSettings, paths: Paths, *, slots: int, info: dict[str, Any]) -> None:
        self.bus = bus
        self.paths = paths
        self.id = f"{bus.service}-{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._slots = slots
        self._info = info
        self._handlers: dict[str, _Registered] = {}
        self._leases = Leases(bus.bucket("leases"), self.id, settings.lease_ttl)
        self._control = bus.bucket("control")
        self._queues: list[CommandQueue] = [bus.commands(lane) for lane in Lane]
        self._running: dict[asyncio.Task[None], Work[Any] | None] = {}
        self._draining = asyncio.Event()
        self._main: list[asyncio.Task[None]] = []

    def on(
        self, command: type[C], handler: Callable[[Work[C]], Awaitable[Done]], finish: FinishHook | None = None
    ) -> None:
        """Registers a command's handler. `finish(command, manifest, revision)` runs after the commit, perhaps twice."""
        self._handlers[type_name(command)] = _Registered(command, handler, finish)

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
        for task in self._main:
            task.cancel()
        await asyncio.gather(*self._main, return_exceptions=True)
        end_children()
        with contextlib.suppress(PlatformError):
            await self.bus.bucket("workers").delete(self.id)

    async def _announce(self) -> None:
        """Keeps this worker in KV `workers`, whose entries fade when nobody renews them."""
        bucket = self.bus.bucket("workers")
        while not self._draining.is_set():
            entry = {
                "service": self.bus.service,
                "worker": self.id,
                "slots": self._slots,
                "jobs": self.jobs_in_hand,
                "seen_at": time.time(),
                **self._info,
            }
            with contextlib.suppress(PlatformError):
                await bucket.put(self.id, json.dumps(entry).encode())
            await asyncio.sleep(self._settings.worker_ttl.total_seconds() / 3)

    async def _take_commands(self) -> None:
        while not self._draining.is_set():
            if len(self._running) >= self._slots:
                await asyncio.wait(list(self._running), return_when=asyncio.FIRST_COMPLETED)
                continue
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
            task = asyncio.create_task(self._see_through(delivery), name="worker.command")
            self._running[task] = None
            task.add_done_callback(self._forget)

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
        enter_trace(envelope.traceparent)
        with bind_job(command.job_id, step=command.step.value):
            try:
                await self._work(delivery, command, registered)
            except Unavailable as error:
                # The broker is away: nothing was acknowledged, so the command comes again.
                log.warning("worker.interrupted", error=error.detail)

    def _open(self, delivery: Delivery) -> tuple[Envelope, Command, _Registered]:
        envelope = delivery.envelope
        if envelope.type not in CATALOGUE or envelope.type not in self._handlers:
            raise ValueError(f"{envelope.type!r} is no command of {self.bus.service}")
        command = envelope.open()
        assert isinstance(command, Command)
        return envelope, command, self._handlers[envelope.type]

    async def _work(self, delivery: Delivery, command: Command, registered: _Registered) -> None:
        steps = self.paths.experiment(command.experiment).step(command.job_id, command.step)
        after = max(command.after_token, await asyncio.to_thread(steps.latest_token))
        claim = await self._leases.acquire(command.job_id, command.step, command.attempt, after)
        if isinstance(claim, Held):
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
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            WORK_TOTAL.labels(command.step.value, outcome).inc()
            WORK_SECONDS.labels(command.step.value).observe(time.monotonic() - started)

    async def _run(self, registered: _Registered, work: Work[Any]) -> Done:
        """The handler; a part of the platform that is away becomes a retry."""
        try:
            with volumes_named():
                return await registered.handler(work)
        except Unavailable as error:
            raise TryAgain(error) from error

    async def _write_manifest(self, work: Work[Any], done: Done) -> ManifestRef:
        command = work.command
        files = done.entries | await asyncio.to_thread(manifests.entries, self.paths, done.files)
        manifest = manifests.Manifest(
            job_id=command.job_id,
            step=command.step,
            token=work.token,
            fingerprint=done.fingerprint,
            folder=self.paths.relative(done.folder or work.steps.attempt(work.token)),
            files=files,
            data=done.data,
            event={"type": type_name(done.event), "fields": done.fields},
        )
        with volumes_named():
            return await asyncio.to_thread(manifests.store, self.paths, work.steps.manifest(work.token), manifest)

    async def _conclude(
        self, delivery: Delivery, command: Command, registered: _Registered, reference: ManifestRef, revision: int
    ) -> None:
        """After the commit: the finish hook, the event, the acknowledgement; all may happen again."""
        manifest = await asyncio.to_thread(manifests.load, self.paths, reference)
        place = await self.bus.place_of(revision)
        if registered.finish is not None:
            try:
                await registered.finish(command, manifest, place)
            except (PlatformError, OSError) as error:
                problem = error if isinstance(error, PlatformError) else Unavailable(f"a folder refuses: {error}")
                if not problem.retryable:
                    raise
                await self._finish_later(delivery, command, reference.token, problem)
                return
        assert manifest.event is not None
        event_class = CATALOGUE[manifest.event["type"]]
        assert issubclass(event_class, StepFinished)
        event = event_class(
            **manifest.event["fields"],
            job_id=command.job_id,
            step=command.step,
            attempt=command.attempt,
            token=reference.token,
            worker=self.id,
            manifest=reference,
            place=place,
        )
        await self._publish(event, f"{command.job_id}.{command.step}.{command.attempt}.{event.fact}")
        await delivery.ack()
        log.info("worker.done", token=reference.token)

    async def _conclude_again(
        self, delivery: Delivery, command: Command, registered: _Registered, claim: Committed
    ) -> Lease | None:
        """What follows a commit of an earlier delivery; when it cannot be done, the job is told and waits no longer.

        When a person asked again, what was made is looked at first, and done anew if it is not whole or cannot be put
        in its place: the lease for that is returned.
        """
        is_asked_again = command.attempt > claim.attempt
        try:
            if is_asked_again:
                await self._check_whole(delivery, claim.manifest)
            await self._conclude(delivery, command, registered, claim.manifest, claim.revision)
        except Unavailable:
            raise
        except Exception as error:
            is_known = isinstance(error, PlatformError)
            log.error("worker.not_concluded", error=f"{type(error).__name__}: {error}", exc_info=not is_known)
            if is_asked_again:
                return await self._reopen(delivery, command, claim)
            failure = error if isinstance(error, PlatformError) else WorkFailed(f"{type(error).__name__}: {error}")
            await self._tell(StepFailed, command, claim.manifest.token, failures=1, problem=failure.problem())
            await delivery.ack()
        return None

    async def _check_whole(self, delivery: Delivery, reference: ManifestRef) -> None:
        """Raises StepResultLost unless every file is as it was committed; reading them may take a while."""

        def read() -> None:
            manifests.check(self.paths, manifests.load(self.paths, reference))

        reading = asyncio.ensure_future(asyncio.to_thread(read))
        while not (await asyncio.wait({reading}, timeout=self._settings.heartbeat.total_seconds()))[0]:
            await delivery.in_progress()
        await reading

    async def _reopen(self, delivery: Delivery, command: Command, claim: Committed) -> Lease | None:
        """The step is to be done again; what is damaged is not taken over."""
        lease = await self._leases.reopen(command.job_id, command.step, command.attempt, claim)
        if lease is None:
            await delivery.nak(timedelta(seconds=0.05))
            return None
        await asyncio.to_thread(manifests.discard_damaged, self.paths, claim.manifest)
        log.warning("worker.reopened", token=lease.token)
        return lease

    async def _finish_later(self, delivery: Delivery, command: Command, token: int, problem: PlatformError) -> None:
        """What was committed stays; the hook is tried again for as long as that can help, and people are told."""
        delay = self._settings.retry_delays[0] if self._settings.retry_delays else timedelta(seconds=5)
        log.warning("worker.finish_failed", detail=problem.detail)
        await self._tell(
            StepDelayed,
            command,
            token,
            suffix=".finish",
            failures=0,
            delay_seconds=delay.total_seconds(),
            problem=problem.problem(),
        )
        await delivery.nak(delay)

    async def _failed(
        self, delivery: Delivery, command: Command, lease: Lease, error: PlatformError, *, retryable: bool
    ) -> None:
        """Counts the failure; asks for the message again after 5, 25, 125 s, or ends the step for good."""
        delays = self._settings.retry_delays
        try:
            failures = lease.record.failures + 1
            if retryable and failures <= len(delays):
                failures = await lease.fail()
                delay = delays[failures - 1]
                log.warning("worker.delayed", failures=failures, delay=delay.total_seconds(), detail=error.detail)
                await self._tell(
                    StepDelayed,
                    command,
                    lease.token,
                    suffix=f".{failures}",
                    failures=failures,
                    delay_seconds=delay.total_seconds(),
                    problem=error.problem(),
                )
                await delivery.nak(delay)
                return
            await lease.give_up(error.problem())
        except LeaseLost:
            log.warning("worker.lease_lost", token=lease.token)
            return
        log.error("worker.failed", code=error.code, detail=error.detail)
        await self._tell(StepFailed, command, lease.token, failures=failures, problem=error.problem())
        await delivery.ack()

    async def _poison(self, delivery: Delivery, command: Command, lease: Lease) -> None:
        """The command ended its worker again and again before anything was done: kept for people, never redelivered."""
        error = PoisonCommand(f"{lease.record.stalls} deliveries of {command.message_id} ended without progress")
        await self.bus.dead_letter(delivery, error.problem())
        await lease.give_up(error.problem())
        await self._tell(StepFailed, command, lease.token, failures=lease.record.failures, problem=error.problem())
        await delivery.term()
        log.error("worker.poison", stalls=lease.record.stalls)

    async def _unreadable(self, delivery: Delivery, error: ValueError) -> None:
        """A command of another version, or none at all: kept for people. The job that it names, if any, is told."""
        problem = WorkFailed(f"the command cannot be read: {error}"[:1000]).problem()
        log.error("worker.unreadable", subject=delivery.subject, error=str(error))
        await self._keep_trying(lambda: self.bus.dead_letter(delivery, problem))
        with contextlib.suppress(ValueError):
            named = Command.model_validate(delivery.envelope.data)
            await self._tell(StepFailed, named, 0, failures=0, problem=problem)
        await self._keep_trying(delivery.term)

    async def _cancelled(self, delivery: Delivery, command: Command, lease: Lease) -> None:
        with contextlib.suppress(LeaseLost):
            await lease.release()
        await self._tell(StepCancelled, command, lease.token)
        await delivery.ack()
        log.info("worker.cancelled")

    # -- telling ------------------------------------------------------------------------------------------------------

    async def _tell(
        self, event: type[StepEvent], command: Command, token: int, *, suffix: str = "", **fields: Any
    ) -> None:
        made = event(
            job_id=command.job_id, step=command.step, attempt=command.attempt, token=token, worker=self.id, **fields
        )
        about = f".{token}" if event in (StepStarted,) else suffix
        await self._publish(made, f"{command.job_id}.{command.step}.{command.attempt}.{made.fact}{about}")

    async def _publish(self, event: Event, event_id: str) -> None:
        await self._keep_trying(lambda: self.bus.publish_event(event, event_id=event_id))

    async def _keep_trying(self, send: Callable[[], Awaitable[Any]]) -> None:
        """Repeats a word to the broker until it is heard or the worker goes: nobody else knows it."""
        while True:
            try:
                await send()
                return
            except Unavailable:
                if self._draining.is_set():
                    raise
                await asyncio.sleep(0.5)

    async def _is_cancelled(self, job_id: str) -> bool:
        return await self._control.get(f"cancel.{job_id}") is not None

    # -- while work is in hand ----------------------------------------------------------------------------------------

    async def _keep_alive(self, work: Work[Any], delivery: Delivery) -> None:
        """Renews the lease and the message; a lease that another worker took, or that ran out, ends the work."""
        heartbeat = self._settings.heartbeat.total_seconds()
        while not work.is_over:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(work.marked.wait(), heartbeat)
            work.marked.clear()
            try:
                await work.lease.renew(work.latest_mark)
                await delivery.in_progress()
            except LeaseLost:
                work.end("lost")
                return
            except Unavailable:
                await asyncio.sleep(min(heartbeat, 0.5))

    async def _watch_control(self, work: Work[Any]) -> None:
        """Looks for a cancel every second: a key-value watch takes up to 16 s to come back after a broker's restart."""
        while not work.is_over:
            await asyncio.sleep(self._settings.cancel_poll.total_seconds())
            with contextlib.suppress(Unavailable, Conflict):
                if await self._is_cancelled(work.command.job_id):
                    work.end("cancel")
                    return

    async def _send_progress(self, work: Work[Any]) -> None:
        while not work.is_over:
            await work.progress_waits.wait()
            work.progress_waits.clear()
            if work.latest_progress is not None:
                await self.bus.publish_progress(work.latest_progress)
            await asyncio.sleep(min(0.2, self._settings.heartbeat.total_seconds()))
