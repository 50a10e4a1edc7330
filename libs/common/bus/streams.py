"""What exists at the broker? Four streams and four buckets, made by whichever service comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from nats.js.api import DiscardPolicy, KeyValueConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError
from nats.js.kv import KeyValue
from pydantic import ByteSize

from libs.common.bus.broker import AWAY, BUCKETS, COMMANDS, DEADLETTERS, EVENTS, PROGRESS, Connected, unavailable
from libs.common.bus.buckets import Bucket
from libs.common.errors import Unavailable

DUPLICATE_WINDOW = 120.0
DAY = 86_400.0
NO_STORAGE = 10047  # its file store is promised to other streams already, or its disk was too full when it started


class Streams(Connected):
    """Makes the streams and buckets, and opens the buckets."""

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

    async def _persist(self, make: Callable[[], Awaitable[None]], what: str) -> None:
        """Tries until it works: at start-up every service may wait for a broker that is still electing or loading."""
        last: Exception | None = None
        for _ in range(60):
            try:
                return await make()
            except AWAY as error:
                last = error
                await asyncio.sleep(0.5)
                if isinstance(error, APIError) and error.err_code == NO_STORAGE:
                    raise Unavailable(self._no_room(what)) from error
        raise Unavailable(f"the message broker does not give {what}: {last}")

    def _no_room(self, what: str) -> str:
        wanted = sum(config.max_bytes or 0 for config in self._streams())
        return (
            f"the message broker has no room for {what}: together the streams may grow to"
            f" {ByteSize(wanted).human_readable()}, which it must be able to hold. Free its disk and start it again,"
            " give its configuration `jetstream { max_file_store }`, or lower COMMANDS_MAX_BYTES and EVENTS_MAX_BYTES"
        )

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

        return Bucket(self._js, store, name, lambda: self._nc.max_payload)

    async def forget_job(self, job_id: str) -> None:
        """Removes what the buckets hold of a job: leases of its steps, its wish to stop, its projection.

        Purged and not deleted: a deleted key leaves a marker for ever.
        """
        with unavailable(f"the removal of {job_id}"):
            for bucket, key in (("leases", f"{job_id}.*"), ("control", f"cancel.{job_id}"), ("jobs", job_id)):
                await self._js.purge_stream(f"KV_{bucket}", subject=f"$KV.{bucket}.{key}")

    async def place_of(self, revision: int) -> int:
        """A number for a revision of the leases that grows over the whole life of the installation.

        A broker that lost its store begins again at revision 1; when its bucket was made tells the two apart.
        """
        with unavailable("a look at the leases"):
            made = (await self._js.stream_info("KV_leases")).created
        return (int(made.timestamp()) - 1_700_000_000 if made else 0) * 2**24 + revision
