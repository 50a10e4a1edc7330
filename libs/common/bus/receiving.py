"""How does a service hear? Durable consumers that its replicas share, bound anew when the broker comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import nats
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

from libs.common.bus.broker import AWAY, BUCKETS, COMMANDS, DEADLETTERS, EVENTS, PROGRESS, Connected, unavailable
from libs.common.bus.deliveries import Delivery
from libs.common.errors import Unavailable
from libs.common.logs import get_logger

log = get_logger("bus")


@dataclass(frozen=True)
class StreamSize:
    messages: int
    bytes: int
    limit: int | None


@dataclass(frozen=True)
class DeadLetter:
    """A command that was put aside: where it was sent, why nobody works on it, what it says."""

    sequence: int
    subject: str
    code: str
    detail: str
    content: str


class Receiving(Connected):
    """Reads streams through durable consumers."""

    _connections = 1  # grows with each reconnect: a consumer may be gone that was there before

    async def _puller(self, stream: str, durable: str, config: ConsumerConfig) -> JetStreamContext.PullSubscription:
        """Creates the durable consumer when it is missing and binds to it."""
        await self._make_consumer(stream, durable, config)
        with unavailable(f"the consumer {durable}"):
            return await self._js.pull_subscribe_bind(durable=durable, stream=stream)

    async def _make_consumer(self, stream: str, durable: str, config: ConsumerConfig) -> None:
        with unavailable(f"the consumer {durable}"):
            try:
                await self._js.consumer_info(stream, durable)
            except NotFoundError:
                await self._js.add_consumer(stream, config)

    async def _pull_forever(
        self, stream: str, durable: str, config: ConsumerConfig, batch: int
    ) -> AsyncIterator[Delivery]:
        while not self._closing.is_set():
            try:
                connection = self._connections
                puller = await self._puller(stream, durable, config)
                while not self._closing.is_set() and connection == self._connections:
                    try:
                        messages = await puller.fetch(batch, timeout=1.0)
                    except (TimeoutError, nats.errors.TimeoutError):
                        if not self._nc.is_connected:
                            await asyncio.sleep(0.2)
                        continue
                    for msg in messages:
                        yield Delivery(msg)
            except (*AWAY, Unavailable) as error:
                if self._closing.is_set():
                    return
                log.info("bus.reader_interrupted", durable=durable, error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(0.5)

    def events(self, durable: str, subject: str = "evt.>") -> AsyncIterator[Delivery]:
        """Facts since the beginning, each until it is acknowledged; the replicas of a service share `durable`."""
        config = ConsumerConfig(
            durable_name=durable,
            filter_subject=subject,
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=self._settings.ack_wait.total_seconds(),
            max_deliver=-1,
        )
        return self._pull_forever(EVENTS, durable, config, batch=16)

    def progress(self, durable: str) -> AsyncIterator[Delivery]:
        """Progress from now on, without acknowledgement."""
        config = ConsumerConfig(
            durable_name=durable,
            filter_subject="prg.>",
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.NEW,
        )
        return self._pull_forever(PROGRESS, durable, config, batch=64)

    async def stream_sizes(self) -> dict[str, StreamSize]:
        """How full each stream and bucket is; one that is not there is left out."""
        sizes = {}
        with unavailable("a look at the streams"):
            for name in (COMMANDS, EVENTS, PROGRESS, DEADLETTERS, *(f"KV_{bucket}" for bucket in BUCKETS)):
                with contextlib.suppress(NotFoundError):
                    info = await self._js.stream_info(name)
                    limit = info.config.max_bytes or -1
                    sizes[name] = StreamSize(info.state.messages, info.state.bytes, limit if limit > 0 else None)
        return sizes

    async def dead_letters(self, most: int = 100) -> list[DeadLetter]:
        """The oldest dead letters, at most `most` of them."""
        found: list[DeadLetter] = []
        with unavailable("a look at the dead letters"):
            state = (await self._js.stream_info(DEADLETTERS)).state
            for sequence in range(state.first_seq, state.last_seq + 1):
                if len(found) >= most:
                    break
                with contextlib.suppress(NotFoundError):
                    msg = await self._js.get_msg(DEADLETTERS, seq=sequence)
                    headers = msg.headers or {}
                    found.append(
                        DeadLetter(
                            sequence,
                            (msg.subject or "").removeprefix("dead."),
                            headers.get("Voicewright-Problem", ""),
                            headers.get("Voicewright-Detail", ""),
                            (msg.data or b"").decode("utf-8", "replace"),
                        )
                    )
        return found

    async def forget_dead_letters(self) -> None:
        """Removes them all, once people have looked at them."""
        with unavailable("the removal of the dead letters"):
            await self._js.purge_stream(DEADLETTERS)

    async def queue_depths(self) -> dict[str, dict[str, int]]:
        """Commands that wait and that are in hand, per consumer, e.g. `{"trainer-high": {"pending": 0, …}}`."""
        depths: dict[str, dict[str, int]] = {}
        with unavailable("a look at the queues"):
            for info in await self._js.consumers_info(COMMANDS):
                depths[info.name] = {"pending": info.num_pending or 0, "unacknowledged": info.num_ack_pending or 0}
        return depths
