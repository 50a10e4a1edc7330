"""How do services reach each other? The one door to NATS JetStream: streams, lanes, buckets, feeds.

Streams and buckets are those of the architecture page. Everything here survives a broker that goes away: sending raises
Unavailable and is repeated by who owns the message (the outbox, a worker that has not acknowledged), reading goes on
where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    KeyValueConfig,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError, NotFoundError
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from libs.common.errors import Conflict, Unavailable
from libs.common.events import Command, Envelope, Event, JobChanged, StepProgress, wrap
from libs.common.jobs import Lane
from libs.common.logs import current_traceparent, get_logger
from libs.common.settings import CommonSettings
from libs.common.tasks import end

log = get_logger("bus")

COMMANDS, EVENTS, PROGRESS, DEADLETTERS = "COMMANDS", "EVENTS", "PROGRESS", "DEADLETTERS"
BUCKETS = ("jobs", "control", "leases", "workers")
DUPLICATE_WINDOW = 120.0
DAY = 86_400.0
_AWAY = (NatsError, JetStreamError, OSError, asyncio.TimeoutError)


def without_secrets(url: str) -> str:
    """An address for logs: without the name and password, or token, that it may carry."""
    before, separator, after = url.rpartition("@")
    return f"{before.split('://')[0]}://{after}" if separator else url


@contextlib.contextmanager
def _unavailable(what: str) -> Any:
    """The broker's own errors become Unavailable, naming what could not be done."""
    try:
        yield
    except _AWAY as error:
        raise Unavailable(f"the message broker did not accept {what}: {type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class Entry:
    value: bytes
    revision: int


class Bucket:
    """A key-value bucket with compare-and-set."""

    def __init__(self, kv: Callable[[], Awaitable[KeyValue]], name: str) -> None:
        self._kv = kv
        self.name = name

    async def get(self, key: str) -> Entry | None:
        with _unavailable(f"a read of {self.name}/{key}"):
            try:
                entry = await (await self._kv()).get(key)
            except KeyNotFoundError:
                return None
        return Entry(entry.value or b"", entry.revision or 0)

    async def create(self, key: str, value: bytes) -> int:
        """Writes a key that must not exist; raises Conflict when it does."""
        with _unavailable(f"{self.name}/{key}"):
            try:
                return await (await self._kv()).create(key, value)
            except KeyWrongLastSequenceError as error:
                raise Conflict(f"{self.name}/{key} exists already") from error

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replaces a key that must still have `revision`; raises Conflict when somebody was faster."""
        with _unavailable(f"{self.name}/{key}"):
            try:
                return await (await self._kv()).update(key, value, last=revision)
            except KeyWrongLastSequenceError as error:
                raise Conflict(f"{self.name}/{key} has changed") from error

    async def put(self, key: str, value: bytes) -> int:
        with _unavailable(f"{self.name}/{key}"):
            return await (await self._kv()).put(key, value)

    async def delete(self, key: str) -> None:
        with _unavailable(f"{self.name}/{key}"):
            await (await self._kv()).delete(key)

    async def keys(self) -> list[str]:
        with _unavailable(f"the keys of {self.name}"):
            try:
                return list(await (await self._kv()).keys())
            except NoKeysError:
                return []


class Delivery:
    """One message in hand: acknowledge it, give it back, or end it."""

    def __init__(self, msg: Msg) -> None:
        self._msg = msg
        self.subject = msg.subject
        self.sequence = msg.metadata.sequence.stream
        self.deliveries = msg.metadata.num_delivered or 1
        self.raw = msg.data

    @property
    def envelope(self) -> Envelope:
        """Raises ValueError when the message is not a CloudEvent."""
        return Envelope.model_validate_json(self.raw)

    async def ack(self) -> None:
        """Ends the message, waiting for the broker's word; raises Unavailable when that does not come."""
        with _unavailable("an acknowledgement"):
            await self._msg.ack_sync(timeout=5.0)

    async def nak(self, delay: timedelta | None = None) -> None:
        with _unavailable("a message given back"):
            await self._msg.nak(delay=delay.total_seconds() if delay else None)

    async def term(self) -> None:
        with _unavailable("the end of a message"):
            await self._msg.term()

    async def in_progress(self) -> None:
        with _unavailable("a sign of life"):
            await self._msg.in_progress()


class Bus:
    """A connection to the broker, for one service."""

    def __init__(self, client: Client, settings: CommonSettings, service: str) -> None:
        self._nc = client
        self._js: JetStreamContext = client.jetstream(timeout=5.0)
        self._settings = settings
        self.service = service
        self._stores: dict[str, KeyValue] = {}
        self._closing = asyncio.Event()
        self._is_ensured = False
        self._connections = 1  # grows with each reconnect: a consumer may be gone that was there before
        self._restoring: asyncio.Task[None] | None = None

    # -- connection ---------------------------------------------------------------------------------------------------

    @classmethod
    async def connect(cls, settings: CommonSettings, service: str) -> Bus:
        """Connects, waiting for a broker that is not there yet; later interruptions are repaired in the background."""

        async def disconnected() -> None:
            log.info("bus.disconnected")

        made: list[Bus] = []

        async def reconnected() -> None:
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
                made.append(cls(client, settings, service))
                return made[0]
            except _AWAY as error:
                await failed(error)
                await asyncio.sleep(0.5)

    @property
    def is_connected(self) -> bool:
        return self._nc.is_connected

    async def ping(self) -> None:
        """Raises Unavailable unless JetStream answers and the streams exist."""
        with _unavailable("a question"):
            await self._js.stream_info(COMMANDS)

    async def close(self) -> None:
        """Ends all iterators, sends what is buffered, and disconnects."""
        self._closing.set()
        if self._restoring is not None:
            await end([self._restoring])
        if self._nc.is_connected:
            with contextlib.suppress(*_AWAY):
                await asyncio.wait_for(self._nc.flush(), 2)
        await self._nc.close()

    # -- what exists --------------------------------------------------------------------------------------------------

    def _streams(self) -> list[StreamConfig]:
        s = self._settings
        replicas = s.nats_replicas
        return [
            StreamConfig(
                name=COMMANDS,
                subjects=["cmd.*.*.*"],
                retention=RetentionPolicy.WORK_QUEUE,
                discard=DiscardPolicy.NEW,
                max_bytes=int(s.commands_max_bytes),
                storage=StorageType.FILE,
                duplicate_window=DUPLICATE_WINDOW,
                num_replicas=replicas,
            ),
            StreamConfig(
                name=EVENTS,
                subjects=["evt.>"],
                max_age=30 * DAY,
                max_bytes=int(s.events_max_bytes),
                storage=StorageType.FILE,
                duplicate_window=DUPLICATE_WINDOW,
                num_replicas=replicas,
            ),
            StreamConfig(
                name=PROGRESS,
                subjects=["prg.>"],
                max_age=DAY,
                max_msgs_per_subject=s.progress_max_per_job,
                max_bytes=int(s.events_max_bytes),
                storage=StorageType.FILE,
                duplicate_window=DUPLICATE_WINDOW,
                num_replicas=replicas,
            ),
            StreamConfig(
                name=DEADLETTERS,
                subjects=["dead.>"],
                max_bytes=int(s.events_max_bytes),
                storage=StorageType.FILE,
                num_replicas=replicas,
            ),
        ]

    async def ensure(self) -> None:
        """Creates streams and buckets, or brings them to the present settings; safe from several services at once."""
        for config in self._streams():
            await self._persist(partial(self._ensure_stream, config), f"the stream {config.name}")
        for name in BUCKETS:
            await self._persist(partial(self._ensure_bucket, name), f"the bucket {name}")
        self._is_ensured = True

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

    async def _persist(self, make: Callable[[], Awaitable[None]], what: str) -> None:
        """Tries until it works: at start-up every service may wait for a broker that is still electing or loading."""
        last: Exception | None = None
        for _ in range(60):
            try:
                return await make()
            except _AWAY as error:
                last = error
                await asyncio.sleep(0.5)
        raise Unavailable(f"the message broker does not give {what}: {last}")

    async def _ensure_stream(self, config: StreamConfig) -> None:
        try:
            await self._js.add_stream(config)
        except APIError as error:
            if error.err_code != 10058:  # stream name already in use with a different configuration
                raise
            await self._js.update_stream(config)

    async def _ensure_bucket(self, name: str) -> None:
        ttl = self._settings.worker_ttl.total_seconds() if name == "workers" else None
        config = KeyValueConfig(
            bucket=name, history=1, ttl=ttl, storage=StorageType.FILE, replicas=self._settings.nats_replicas
        )
        try:
            self._stores[name] = await self._js.create_key_value(config)
        except APIError as error:
            if error.err_code != 10058:
                raise
            self._stores[name] = await self._js.key_value(name)

    def bucket(self, name: str) -> Bucket:
        async def store() -> KeyValue:
            if name not in self._stores:
                self._stores[name] = await self._js.key_value(name)
            return self._stores[name]

        return Bucket(store, name)

    async def forget_job(self, job_id: str) -> None:
        """Removes what the buckets hold of a job: leases of its steps, its wish to stop, its projection.

        Purged and not deleted: a deleted key leaves a marker for ever.
        """
        with _unavailable(f"the removal of {job_id}"):
            for bucket, key in (("leases", f"{job_id}.*"), ("control", f"cancel.{job_id}"), ("jobs", job_id)):
                await self._js.purge_stream(f"KV_{bucket}", subject=f"$KV.{bucket}.{key}")

    async def place_of(self, revision: int) -> int:
        """A number for a revision of the leases that grows over the whole life of the installation.

        A broker that lost its store begins again at revision 1; when its bucket was made tells the two apart.
        """
        with _unavailable("a look at the leases"):
            made = (await self._js.stream_info("KV_leases")).created
        return (int(made.timestamp()) - 1_700_000_000 if made else 0) * 2**24 + revision

    # -- sending ------------------------------------------------------------------------------------------------------

    async def _publish(self, message: Command | Event | JobChanged, subject: str, message_id: str) -> int:
        envelope = wrap(
            message, id=message_id, subject=subject, service=self.service, traceparent=current_traceparent()
        )
        return await self._publish_raw(subject, envelope.model_dump_json().encode(), message_id)

    async def _publish_raw(self, subject: str, payload: bytes, message_id: str) -> int:
        if not self._nc.is_connected:
            raise Unavailable("the message broker is not connected")
        with _unavailable(f"a message on {subject}"):
            ack = await self._js.publish(subject, payload, timeout=5.0, headers={"Nats-Msg-Id": message_id})
        return ack.seq

    async def send_command(self, command: Command, lane: Lane) -> int:
        """Returns the stream sequence; raises Unavailable when the broker is away or the stream is full."""
        return await self._publish(command, command.subject(lane), command.message_id)

    async def delete_command(self, sequence: int) -> bool:
        """Removes a command that nobody has finished; False when it is gone already."""
        with _unavailable("the removal of a command"):
            try:
                return await self._js.delete_msg(COMMANDS, sequence)
            except NotFoundError:
                return False
            except APIError as error:
                if error.err_code in (10037, 10043, 10057):  # no message found, or sequence not found
                    return False
                raise

    async def publish_event(self, event: Event, *, event_id: str) -> int:
        return await self._publish(event, event.subject(), event_id)

    async def publish_state(self, changed: JobChanged, *, message_id: str) -> int:
        return await self._publish(changed, changed.subject(), message_id)

    async def publish_progress(self, progress: StepProgress) -> None:
        """Best effort: a lost line of progress is followed by the next one."""
        if not self._nc.is_connected:
            return
        envelope = wrap(
            progress,
            id=f"{progress.job_id}.{progress.step}.{progress.token}.{progress.done}.{progress.fraction:.6f}",
            subject=progress.subject(),
            service=self.service,
        )
        with contextlib.suppress(*_AWAY):
            await self._nc.publish(progress.subject(), envelope.model_dump_json().encode())

    async def dead_letter(self, delivery: Delivery, problem: dict[str, Any]) -> None:
        """Keeps a message that cannot be worked on, with the reason in its headers, for people to look at."""
        if not self._nc.is_connected:
            raise Unavailable("the message broker is not connected")
        with _unavailable("a dead letter"):
            await self._js.publish(
                f"dead.{delivery.subject}",
                delivery.raw,
                headers={
                    "Voicewright-Problem": str(problem.get("code", "")),
                    "Voicewright-Detail": " ".join(str(problem.get("detail", "")).split())[:500],
                    "Voicewright-Sequence": str(delivery.sequence),
                },
            )

    # -- receiving ----------------------------------------------------------------------------------------------------

    def commands(self, lane: Lane) -> CommandQueue:
        """The queue of this service's commands in one lane."""
        return CommandQueue(self, lane)

    async def _puller(self, stream: str, durable: str, config: ConsumerConfig) -> JetStreamContext.PullSubscription:
        """Creates the durable consumer when it is missing and binds to it."""
        with _unavailable(f"the consumer {durable}"):
            try:
                await self._js.consumer_info(stream, durable)
            except NotFoundError:
                await self._js.add_consumer(stream, config)
            return await self._js.pull_subscribe_bind(durable=durable, stream=stream)

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
            except (*_AWAY, Unavailable) as error:
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

    async def feed_head(self, job_id: str) -> tuple[int, Envelope | None]:
        """Sequence and content of the newest message of a job's feed, (0, None) when there is none."""
        with _unavailable("a look at a feed"):
            try:
                msg = await self._js.get_last_msg(PROGRESS, f"prg.job.{job_id}")
            except NotFoundError:
                return 0, None
        return msg.seq or 0, Envelope.model_validate_json(msg.data or b"{}")

    async def feed_holds(self, job_id: str, sequence: int) -> bool:
        """Whether all that followed `sequence` in a job's feed is still there: it is when that message itself is.

        Before the first message (0) that is said only while the stream and the feed have dropped nothing.
        """
        subject = f"prg.job.{job_id}"
        with _unavailable("a look at a feed"):
            if sequence == 0:
                state = (await self._js.stream_info(PROGRESS, subjects_filter=subject)).state
                return (
                    state.first_seq <= 1
                    and (state.subjects or {}).get(subject, 0) < self._settings.progress_max_per_job
                )
        return await self.feed_message(job_id, sequence) is not None

    async def feed_message(self, job_id: str, sequence: int) -> Envelope | None:
        """The message of a job's feed at a stream sequence; None when it is not there, or is another job's."""
        with _unavailable("a look at a feed"):
            try:
                msg = await self._js.get_msg(PROGRESS, seq=sequence)
            except NotFoundError:
                return None
        return Envelope.model_validate_json(msg.data or b"{}") if msg.subject == f"prg.job.{job_id}" else None

    async def feed_has(self, job_id: str, message_id: str, until: int, since: datetime | None) -> bool:
        """Whether a job's feed holds a message of this id up to sequence `until`, sent after `since` (None: ever)."""
        config = ConsumerConfig(
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.BY_START_TIME if since else DeliverPolicy.ALL,
            opt_start_time=since,
            inactive_threshold=30.0,
        )
        with _unavailable("a look at a feed"):
            puller = await self._js.pull_subscribe(f"prg.job.{job_id}", stream=PROGRESS, config=config)
            try:
                left = (await puller.consumer_info()).num_pending or 0
                while left > 0:
                    for msg in await puller.fetch(min(left, 256), timeout=5.0):
                        left -= 1
                        if msg.metadata.sequence.stream > until:
                            return False
                        if Envelope.model_validate_json(msg.data).id == message_id:
                            return True
                return False
            finally:
                await puller.unsubscribe()

    async def feed(self, job_id: str, after: int) -> AsyncIterator[tuple[int, Envelope]]:
        """Messages of one job's feed beyond stream sequence `after`, in order, without gap or doubling, endless.

        Each (re)start is a fresh ephemeral consumer from the sequence after the last one that was given out, so a
        broker that restarts neither repeats nor skips.
        """
        last = after
        while not self._closing.is_set():
            puller: JetStreamContext.PullSubscription | None = None
            try:
                if (await self._js.stream_info(PROGRESS)).state.last_seq < last:
                    last = 0  # the broker lost its store, and counts from the beginning
                puller = await self._js.pull_subscribe(
                    f"prg.job.{job_id}",
                    stream=PROGRESS,
                    config=ConsumerConfig(
                        ack_policy=AckPolicy.NONE,
                        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
                        opt_start_seq=last + 1,
                        inactive_threshold=30.0,
                    ),
                )
                silent = 0
                while not self._closing.is_set():
                    try:
                        messages = await puller.fetch(64, timeout=1.0)
                        silent = 0
                    except (TimeoutError, nats.errors.TimeoutError):
                        silent += 1
                        # A consumer that was lost with the broker stays silent: ask now and then whether it lives.
                        if not self._nc.is_connected or silent % 5 == 0:
                            await puller.consumer_info()
                        continue
                    for msg in messages:
                        sequence = msg.metadata.sequence.stream
                        if sequence > last:
                            last = sequence
                            yield sequence, Envelope.model_validate_json(msg.data)
            except _AWAY as error:
                log.debug("bus.feed_interrupted", job_id=job_id, error=str(error))
                await asyncio.sleep(0.3)
            finally:
                if puller is not None and self._nc.is_connected:
                    with contextlib.suppress(*_AWAY):
                        await puller.unsubscribe()

    # -- numbers ------------------------------------------------------------------------------------------------------

    async def queue_depths(self) -> dict[str, dict[str, int]]:
        """Commands that wait and that are in hand, per consumer, e.g. `{"trainer-high": {"pending": 0, …}}`."""
        depths: dict[str, dict[str, int]] = {}
        with _unavailable("a look at the queues"):
            for info in await self._js.consumers_info(COMMANDS):
                depths[info.name] = {"pending": info.num_pending or 0, "unacknowledged": info.num_ack_pending or 0}
        return depths


class CommandQueue:
    """One lane of a service's commands; one durable consumer that all replicas share."""

    def __init__(self, bus: Bus, lane: Lane) -> None:
        self._bus = bus
        self.lane = lane
        self.durable = f"{bus.service}-{lane}"
        self._puller: JetStreamContext.PullSubscription | None = None
        self._connection = 0

    def _config(self) -> ConsumerConfig:
        return ConsumerConfig(
            durable_name=self.durable,
            filter_subject=f"cmd.{self._bus.service}.*.{self.lane}",
            ack_policy=AckPolicy.EXPLICIT,
            deliver_policy=DeliverPolicy.ALL,
            ack_wait=self._bus._settings.ack_wait.total_seconds(),
            max_deliver=-1,  # deliveries are not attempts: see worker.py
            max_ack_pending=10_000,
        )

    async def ensure(self) -> None:
        """Makes the consumer, so that a scaler sees its lag before any worker asks."""
        if self._puller is not None:
            with contextlib.suppress(*_AWAY):
                await self._puller.unsubscribe()
        self._connection = self._bus._connections
        self._puller = await self._bus._puller(COMMANDS, self.durable, self._config())

    async def take(self, wait: timedelta) -> Delivery | None:
        """The next command, or None when none comes within `wait`; raises Unavailable when the broker is away."""
        with _unavailable("a request for work"):
            try:
                if self._puller is None or self._connection != self._bus._connections:
                    await self.ensure()
                assert self._puller is not None
                messages = await self._puller.fetch(1, timeout=wait.total_seconds())
            except (TimeoutError, nats.errors.TimeoutError):
                return None
            except _AWAY:
                self._puller = None
                raise
        return Delivery(messages[0]) if messages else None
