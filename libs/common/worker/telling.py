"""How does a worker speak of its work? Facts about a step, repeated until the broker has heard them."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.events import Command, Event, StepEvent, StepStarted
from libs.common.leases import Leases
from libs.common.logs import get_logger
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.common.storable import storable_problem
from libs.common.work import Done, Work

log = get_logger("worker")

Handler = Callable[[Work[Any]], Awaitable[Done]]
FinishHook = Callable[[Any, manifests.Manifest, int], Awaitable[None]]  # the number grows from commit to commit


@dataclass(frozen=True)
class Registered:
    """A command of the service, who works on it, and what follows its commit."""

    command: type[Command]
    handler: Handler
    finish: FinishHook | None


class Telling:
    """One worker, as others hear of it."""

    def __init__(self, bus: Bus, settings: CommonSettings, paths: Paths) -> None:
        self.bus = bus
        self.paths = paths
        self.id = f"{bus.service}-{socket.gethostname()}-{os.getpid()}"
        self._settings = settings
        self._leases = Leases(bus.bucket("leases"), self.id, settings.lease_ttl)
        self._control = bus.bucket("control")
        self._draining = asyncio.Event()

    async def _tell(
        self, event: type[StepEvent], command: Command, token: int, *, suffix: str = "", **fields: Any
    ) -> None:
        if "problem" in fields:
            fields["problem"] = self._told(fields["problem"])
        made = event(
            job_id=command.job_id, step=command.step, attempt=command.attempt, token=token, worker=self.id, **fields
        )
        about = f".{token}" if event in (StepStarted,) else suffix
        await self._publish(made, f"{command.job_id}.{command.step}.{command.attempt}.{made.fact}{about}")

    def _told(self, problem: dict[str, Any]) -> dict[str, Any]:
        """What others hear of a failure: it must get through, whatever a stranger's file put into it."""
        return storable_problem(self.paths.places.hidden(problem))

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
