"""How does a step end? With a commit and its event, later again, as a failure, cancelled, or among the dead letters."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

from libs.common import manifests
from libs.common.bus import Delivery
from libs.common.errors import LeaseLost, PlatformError, PoisonCommand, Unavailable, WorkFailed
from libs.common.events import (
    CATALOGUE,
    Command,
    ManifestRef,
    StepCancelled,
    StepDelayed,
    StepFailed,
    StepFinished,
    type_name,
)
from libs.common.leases import Committed, Lease
from libs.common.metrics import WORK_FAILURES, code_label
from libs.common.work import Done, Work, volumes_named
from libs.common.worker.telling import Registered, Telling, log

LONGEST_DELAY = 3600.0
"""Seconds: more than this a job does not wait for anybody, however long it is asked to."""


class Concluding(Telling):
    """The ends that a step can come to. Each acknowledges the message or gives it back."""

    async def _write_manifest(self, work: Work[Any], done: Done) -> ManifestRef:
        """Raises MessageTooLarge when nobody could be told of it: before anything depends on the result."""
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
            where = work.steps.manifest(work.token)
            reference = await asyncio.to_thread(manifests.store, self.paths, where, manifest)
        event = self._event(command, manifest, reference, place=2**53)
        self.bus.require_room_for(event, event_id=_event_id(event))
        return reference

    def _event(
        self, command: Command, manifest: manifests.Manifest, reference: ManifestRef, place: int
    ) -> StepFinished:
        """What is told of a finished step, as its manifest has it."""
        assert manifest.event is not None
        event_class = CATALOGUE[manifest.event["type"]]
        assert issubclass(event_class, StepFinished)
        return event_class(
            **manifest.event["fields"],
            job_id=command.job_id,
            step=command.step,
            attempt=command.attempt,
            token=reference.token,
            worker=self.id,
            manifest=reference,
            place=place,
        )

    async def _conclude(
        self, delivery: Delivery, command: Command, registered: Registered, reference: ManifestRef, revision: int
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
        event = self._event(command, manifest, reference, place)
        await self._publish(event, _event_id(event))
        await delivery.ack()
        log.info("worker.done", token=reference.token)

    async def _conclude_again(
        self, delivery: Delivery, command: Command, registered: Registered, claim: Committed
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
            _count(command, failure, "final")
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
        """Counts the failure; asks for the message again after 5, 25, 125 s, or ends the step for good.

        Whoever failed may ask for more time (Retry-After of an outside service): then it is asked no sooner.
        """
        delays = self._settings.retry_delays
        try:
            failures = lease.record.failures + 1
            if retryable and failures <= len(delays):
                failures = await lease.fail()
                _count(command, error, "retry")
                delay = max(delays[failures - 1], _asked_for(error))
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
            await lease.give_up(self._told(error.problem()))
        except LeaseLost:
            log.warning("worker.lease_lost", token=lease.token)
            return
        _count(command, error, "final")
        log.error("worker.failed", code=error.code, detail=error.detail)
        await self._tell(StepFailed, command, lease.token, failures=failures, problem=error.problem())
        await delivery.ack()

    async def _poison(self, delivery: Delivery, command: Command, lease: Lease) -> None:
        """The command ended its worker again and again before anything was done: kept for people, never redelivered."""
        error = PoisonCommand(f"{lease.record.stalls} deliveries of {command.message_id} ended without progress")
        await self.bus.dead_letter(delivery, error.problem())
        await lease.give_up(error.problem())
        _count(command, error, "final")
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


def _asked_for(error: PlatformError) -> timedelta:
    return timedelta(seconds=min(error.retry_after or 0.0, LONGEST_DELAY))


def _count(command: Command, error: PlatformError, verdict: str) -> None:
    WORK_FAILURES.labels(command.step.value, code_label(error.code), verdict).inc()


def _event_id(event: StepFinished) -> str:
    return f"{event.job_id}.{event.step}.{event.attempt}.{event.fact}"
