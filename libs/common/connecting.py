"""How does a service of workers find its broker? In the background: it answers, and says why it is not ready."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, FastAPI

from libs.common.bus import NOT_REACHED, Bus
from libs.common.errors import PlatformError, TryAgain, Unavailable
from libs.common.health import BrokerCheck, Check
from libs.common.logs import get_logger
from libs.common.service import create_service
from libs.common.settings import CommonSettings
from libs.common.tasks import end
from libs.common.worker import Worker

log = get_logger("connecting")

_PAUSE = 1.0


class ConnectingWorker:
    """A worker that begins once the broker is there; also the readiness check of both.

    `make` gives the worker for a bus, or None when this node must not take work (its own check says why). A bus that is
    handed in is used as it is, and stays open.
    """

    name = "broker"

    def __init__(
        self,
        settings: CommonSettings,
        service: str,
        make: Callable[[Bus], Awaitable[Worker | None]],
        bus: Bus | None = None,
    ) -> None:
        self._settings = settings
        self._service = service
        self._make = make
        self._given = bus
        self._bus: Bus | None = None
        self._worker: Worker | None = None
        self._has_begun = False
        self.absence = NOT_REACHED
        self.has_enough = asyncio.Event()  # set when its worker takes no more commands, see WORKER_COMMANDS

    async def __call__(self) -> str:
        if self._bus is None or not self._has_begun:
            raise Unavailable(self.absence)
        return await BrokerCheck(self._bus)()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connects and works while the block runs; what is in hand is drained at its end."""
        task = asyncio.create_task(self._live(), name="connecting")
        try:
            yield
        finally:
            await end([task])
            if self._worker is not None:
                await self._worker.drain()
            if self._bus is not None and self._given is None:
                await self._bus.close()

    async def _live(self) -> None:
        await self._begin()
        if self._worker is not None:
            await self._worker.has_enough.wait()
            self.has_enough.set()

    async def _begin(self) -> None:
        self._bus = self._given or await Bus.connect(self._settings, self._service)
        while True:
            try:
                await self._bus.ensure()
                worker = await self._make(self._bus)
                break
            except (PlatformError, TryAgain) as error:
                self.absence = str(error)
                log.warning("broker.not_ready", detail=str(error))
                await asyncio.sleep(_PAUSE)
        if worker is not None:
            await worker.start()
        self._worker = worker
        self._has_begun = True


async def _end_when_all_have_enough(app: FastAPI, workers: Sequence[ConnectingWorker]) -> None:
    for worker in workers:
        await worker.has_enough.wait()
    app.state.enough.set()


def create_worker_service(
    name: str,
    settings: CommonSettings,
    workers: Sequence[ConnectingWorker],
    *,
    checks: Sequence[Check],
    router: APIRouter,
    prefixes: tuple[str, ...],
    title: str,
    description: str,
) -> FastAPI:
    """The app of a service that works on commands. It is ready when its first worker has reached the broker.

    `router` holds the old direct addresses below `prefixes`, for which the caller's own token counts.
    """
    all_checks = list(checks)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        all_checks.append(workers[0])  # only now: that it is not there yet is nothing to complain about at the start
        async with AsyncExitStack() as stack:
            for worker in reversed(workers):
                await stack.enter_async_context(worker.running())
            ending = asyncio.create_task(_end_when_all_have_enough(app, workers), name="ending")
            stack.push_async_callback(end, [ending])
            yield

    return create_service(
        name,
        settings,
        routers=[router],
        lifespan=lifespan,
        checks=all_checks,
        open_prefixes=prefixes,
        title=title,
        description=description,
    )
