"""How does a worker get its commands? One queue for each lane of its service."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import TYPE_CHECKING

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from libs.common.bus.broker import AWAY, COMMANDS, unavailable
from libs.common.bus.deliveries import Delivery
from libs.common.jobs import Lane

if TYPE_CHECKING:
    from libs.common.bus.connection import Bus


class CommandQueue:
    """One lane of a service's commands, of the bus's own if none is named; one durable consumer for all replicas."""

    def __init__(self, bus: Bus, lane: Lane, service: str = "") -> None:
        self._bus = bus
        self.lane = lane
        self._service = service or bus.service
        self.durable = f"{self._service}-{lane}"
        self._puller: JetStreamContext.PullSubscription | None = None
        self._connection = 0

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            name=self.durable,  # with it the filter is part of the request, which a broker with accounts can check
            durable_name=self.durable,
            filter_subject=f"cmd.{self._service}.*.{self.lane}",
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=self._bus._settings.ack_wait.total_seconds(),
            max_deliver=-1,  # deliveries are not attempts: see libs/common/worker
            max_ack_pending=10_000,
        )

    async def ensure(self) -> None:
        """Makes the consumer when it is missing, and binds to it."""
        if self._puller is not None:
            with contextlib.suppress(*AWAY):
                await self._puller.unsubscribe()
        self._connection = self._bus._connections
        self._puller = await self._bus._puller(COMMANDS, self.durable, self._config())

    async def make(self) -> None:
        """Makes the consumer when it is missing, so that a scaler sees its lag before any worker asks."""
        await self._bus._make_consumer(COMMANDS, self.durable, self._config())

    async def take(self, wait: timedelta) -> Delivery | None:
        """The next command, or None when none comes within `wait`; raises Unavailable when the broker is away."""
        with unavailable("a request for work"):
            try:
                if self._puller is None or self._connection != self._bus._connections:
                    await self.ensure()
                assert self._puller is not None
                messages = await self._puller.fetch(1, timeout=wait.total_seconds())
            except (TimeoutError, nats.errors.TimeoutError):
                return None
            except AWAY:
                self._puller = None
                raise
        return Delivery(messages[0]) if messages else None
