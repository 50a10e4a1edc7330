"""How does a service stay in touch with the broker? It waits for it, and restores what an interruption broke."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Iterable

import nats
from nats.aio.client import Client

from libs.common.bus.broker import AWAY, COMMANDS, unavailable, without_secrets
from libs.common.bus.feeds import Feeds
from libs.common.bus.queues import CommandQueue
from libs.common.bus.receiving import Receiving
from libs.common.bus.sending import Sending
from libs.common.bus.streams import Streams
from libs.common.errors import Unavailable
from libs.common.jobs import Lane
from libs.common.logs import get_logger
from libs.common.metrics import BROKER_CONNECTED
from libs.common.settings import CommonSettings
from libs.common.tasks import end

log = get_logger("bus")


class Bus(Streams, Sending, Receiving, Feeds):
    """A connection to the broker, for one service."""

    def __init__(self, client: Client, settings: CommonSettings, service: str) -> None:
        super().__init__(client, settings, service)
        self._is_ensured = False
        self._queue_services: tuple[str, ...] = ()
        self._restoring: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, settings: CommonSettings, service: str) -> Bus:
        """Connects, waiting for a broker that is not there yet; later interruptions are repaired in the background."""

        connected = BROKER_CONNECTED.labels(service)
        connected.set(0)

        async def disconnected() -> None:
            connected.set(0)
            log.info("bus.disconnected")

        made: list[Bus] = []

        async def reconnected() -> None:
            connected.set(1)
            log.info("bus.reconnected")
            for bus in made:
                bus._restore()

        waited = 0
        is_first = True

        async def failed(error: Exception) -> None:
            nonlocal waited
            if not is_first:
                log.debug("bus.error", error=f"{type(error).__name__}: {error}")
                return
            if waited % 20 == 0:
                log.warning("bus.waiting", url=without_secrets(settings.nats_url), error=str(error))
            waited += 1

        while True:
            try:
                client = await nats.connect(
                    settings.nats_url,
                    name=service,
                    user_credentials=str(settings.nats_credentials) if settings.nats_credentials else None,
                    user=settings.nats_user or None,
                    password=settings.nats_password.get_secret_value() if settings.nats_password else None,
                    tls=ssl.create_default_context(cafile=settings.nats_ca) if settings.nats_ca else None,
                    inbox_prefix=f"_INBOX.{service}",  # so that a broker with accounts can keep answers apart
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.5,
                    connect_timeout=5,
                    ping_interval=20,
                    max_outstanding_pings=2,
                    allow_reconnect=True,
                    error_cb=failed,
                    disconnected_cb=disconnected,
                    reconnected_cb=reconnected,
                )
                is_first = False
                connected.set(1)
                made.append(cls(client, settings, service))
                return made[0]
            except AWAY as error:
                await failed(error)
                await asyncio.sleep(0.5)

    async def ping(self) -> None:
        """Raises Unavailable unless JetStream answers and the streams exist."""
        with unavailable("a question"):
            await self._js.stream_info(COMMANDS)

    async def close(self) -> None:
        """Ends all iterators, sends what is buffered, and disconnects."""
        self._closing.set()
        if self._restoring is not None:
            await end([self._restoring])
        if self._nc.is_connected:
            with contextlib.suppress(*AWAY):
                await asyncio.wait_for(self._nc.flush(), 2)
        # What waits to be said to a broker that is away is lost; the outbox has it.
        with contextlib.suppress(OSError):
            await self._nc.close()

    async def ensure(self) -> None:
        """Creates streams and buckets, or brings them to the present settings; safe from several services at once."""
        await super().ensure()
        for service in self._queue_services:
            for lane in Lane:
                await CommandQueue(self, lane, service).make()
        self._is_ensured = True

    async def ensure_queues(self, services: Iterable[str]) -> None:
        """Makes all, and the queues of these services too: a command is counted before any worker has asked for one.

        What starts workers by the length of their queues relies on it, and finds them again after a lost store.
        """
        self._queue_services = tuple(services)
        await self.ensure()

    def _restore(self) -> None:
        """After an interruption: a broker that lost its store gets its streams again, by whoever is first."""
        self._connections += 1
        if self._is_ensured and (self._restoring is None or self._restoring.done()):
            self._restoring = asyncio.create_task(self._ensure_again(), name="bus.restore")

    async def _ensure_again(self) -> None:
        while not self._closing.is_set():
            try:
                await self.ensure()
            except Unavailable as error:
                log.warning("bus.not_restored", detail=error.detail)
            else:
                return

    def commands(self, lane: Lane) -> CommandQueue:
        """The queue of this service's commands in one lane."""
        return CommandQueue(self, lane)
