"""Workers that follow a test's script: they take real commands and tell real events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.bus import Bus, Delivery
from libs.common.errors import PlatformError, Unavailable, WorkFailed
from libs.common.events import (
    CheckSpeech,
    Command,
    DatasetPrepared,
    DatasetValidated,
    IndexBuilt,
    SpeechChecked,
    StepCancelled,
    StepDelayed,
    StepFailed,
    StepFinished,
    StepProgress,
    StepStarted,
    VoiceEvaluated,
    VoicePublished,
    VoiceTrained,
)
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.tasks import end
from services.gateway.settings import GatewaySettings
from tests.waiting import PATIENCE


@dataclass
class Taken:
    """A command in a scripted worker's hand; every word uses the real events and ids."""

    command: Command
    delivery: Delivery
    bus: Bus
    paths: Paths
    token: int = 1

    async def _say(self, event: Any, suffix: str = "") -> None:
        c = self.command
        await self.bus.publish_event(event, event_id=f"{c.job_id}.{c.step}.{c.attempt}.{event.fact}{suffix}")

    @property
    def _frame(self) -> dict[str, Any]:
        c = self.command
        return {"job_id": c.job_id, "step": c.step, "attempt": c.attempt, "token": self.token, "worker": "scripted"}

    async def start(self) -> None:
        await self._say(StepStarted(**self._frame), f".{self.token}")

    async def progress(self, fraction: float, **more: Any) -> None:
        c = self.command
        await self.bus.publish_progress(
            StepProgress(job_id=c.job_id, step=c.step, fraction=fraction, token=self.token, worker="scripted", **more)
        )

    async def delay(self, failures: int, error: PlatformError | None = None) -> None:
        problem = (error or Unavailable("the disk is away")).problem()
        event = StepDelayed(**self._frame, failures=failures, delay_seconds=0.25, problem=problem)
        await self._say(event, f".{failures}")

    async def fail(self, error: PlatformError | None = None, failures: int = 0) -> None:
        problem = (error or WorkFailed("it broke")).problem()
        await self._say(StepFailed(**self._frame, failures=failures, problem=problem))
        await self.delivery.ack()

    async def cancelled(self) -> None:
        await self._say(StepCancelled(**self._frame))
        await self.delivery.ack()

    async def finish(self, files: list[Path] | None = None, **told: Any) -> StepFinished:
        """`told`: other values of the event than the usual ones."""
        event = finished(self.command, self.paths, self.token, files or []).model_copy(update=told)
        await self._say(event)
        await self.delivery.ack()
        return event


def finished(command: Command, paths: Paths, token: int, files: list[Path]) -> StepFinished:
    """The event of a finished step, with a real manifest behind it."""
    steps = paths.experiment(command.experiment).step(command.job_id, command.step)
    manifest = manifests.Manifest(
        job_id=command.job_id,
        step=command.step,
        token=token,
        folder=paths.relative(steps.attempt(token)),
        files=manifests.entries(paths, files),
    )
    frame: dict[str, Any] = {
        "job_id": command.job_id,
        "step": command.step,
        "attempt": command.attempt,
        "token": token,
        "worker": "scripted",
        "manifest": manifests.store(paths, steps.manifest(token), manifest),
    }
    voice = str(getattr(command, "voice", ""))
    match command.step:
        case Step.validate:
            return DatasetValidated(**frame, dataset=command.experiment, seconds=70.0, recordings=2)
        case Step.preprocess if isinstance(command, CheckSpeech):
            clips = len(command.clips)
            return SpeechChecked(**frame, dataset=command.dataset, clips=clips, refused=0, seconds=69.0, language="en")
        case Step.preprocess:
            return DatasetPrepared(
                **frame,
                dataset=command.experiment,
                pieces=20,
                seconds=69.0,
                voiced_ratio=0.6,
                sample_rate=24_000,
                content_encoder={"name": "scripted", "sha256": "0" * 64},
                f0_method="swiftf0",
            )
        case Step.train:
            return VoiceTrained(**frame, voice=voice, steps=800, epochs=10, losses={"mel": 0.4}, seconds=2.0)
        case Step.index:
            return IndexBuilt(**frame, voice=voice, vectors=1000)
        case Step.evaluate:
            return VoiceEvaluated(**frame, voice=voice, quality={"similarity": 0.8})
        case Step.publish:
            return VoicePublished(
                **frame,
                voice=voice,
                weights_sha256="a" * 64,
                index_sha256="b" * 64,
                sample_rate=24_000,
                preset="lite",
                card={"name": voice},
            )


class Workers:
    """Ingest, preprocessor and trainer in one, doing what the test says."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._paths = Paths(settings)
        self._buses: list[Bus] = []
        self._task: asyncio.Task[None] | None = None
        self.seen: list[Command] = []

    async def open(self) -> None:
        for service in ("ingest", "preprocessor", "trainer"):
            bus = await Bus.connect(self._settings, service)
            self._buses.append(bus)
            await bus.ensure()
        self._queues = [(bus, bus.commands(lane)) for bus in self._buses for lane in Lane]

    async def close(self) -> None:
        if self._task is not None:
            await end([self._task])
        for bus in self._buses:
            await bus.close()

    async def take(self, seconds: float = PATIENCE) -> Taken:
        """The next command of any service."""
        deadline = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < deadline:
            for bus, queue in self._queues:
                try:
                    delivery = await queue.take(timedelta(seconds=0.02))
                except Unavailable:
                    await asyncio.sleep(0.1)
                    continue
                if delivery is not None:
                    command = delivery.envelope.open()
                    assert isinstance(command, Command)
                    self.seen.append(command)
                    return Taken(command, delivery, bus, self._paths)
        raise AssertionError("no command came")

    async def is_idle(self, seconds: float = 0.6) -> bool:
        try:
            await self.take(seconds)
        except AssertionError:
            return True
        return False

    def work(self, each: Callable[[Taken], Awaitable[None]] | None = None) -> None:
        """Does every command from now on: starts, tells of progress, finishes."""

        async def loop() -> None:
            while True:
                try:
                    taken = await self.take(3600)
                    if each is not None:
                        await each(taken)
                    else:
                        await ordinary(taken)
                except Unavailable:
                    await asyncio.sleep(0.1)  # the broker is away: the command comes again

        self._task = asyncio.create_task(loop())


async def ordinary(taken: Taken) -> None:
    """What a worker does when nothing goes wrong."""
    await taken.start()
    for part in (0.5, 1.0):
        await taken.progress(part, done=int(100 * part), total=100, loss=1.0 - part / 2, eta_seconds=1.0)
    await taken.finish()
