"""How are small things kept that several services share? Key-value buckets with compare-and-set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError
from nats.js.kv import KeyValue

from libs.common.bus.broker import require_room, unavailable
from libs.common.errors import Conflict


@dataclass(frozen=True)
class Entry:
    value: bytes
    revision: int


class Bucket:
    """A key-value bucket with compare-and-set. Writing raises MessageTooLarge for a value that never fits."""

    def __init__(
        self, js: JetStreamContext, kv: Callable[[], Awaitable[KeyValue]], name: str, limit: Callable[[], int]
    ) -> None:
        self._js = js
        self._kv = kv
        self._limit = limit
        self.name = name

    async def get(self, key: str) -> Entry | None:
        with unavailable(f"a read of {self.name}/{key}"):
            try:
                entry = await (await self._kv()).get(key)
            except KeyNotFoundError:
                return None
        return Entry(entry.value or b"", entry.revision or 0)

    async def create(self, key: str, value: bytes) -> int:
        """Writes a key that must not exist; raises Conflict when it does."""
        require_room(f"{self.name}/{key}", len(value), self._limit())
        with unavailable(f"{self.name}/{key}"):
            try:
                return await (await self._kv()).create(key, value)
            except KeyWrongLastSequenceError as error:
                raise Conflict(f"{self.name}/{key} exists already") from error

    async def update(self, key: str, value: bytes, revision: int) -> int:
        """Replaces a key that must still have `revision`; raises Conflict when somebody was faster."""
        require_room(f"{self.name}/{key}", len(value), self._limit())
        with unavailable(f"{self.name}/{key}"):
            try:
                return await (await self._kv()).update(key, value, last=revision)
            except KeyWrongLastSequenceError as error:
                raise Conflict(f"{self.name}/{key} has changed") from error

    async def put(self, key: str, value: bytes) -> int:
        require_room(f"{self.name}/{key}", len(value), self._limit())
        with unavailable(f"{self.name}/{key}"):
            return await (await self._kv()).put(key, value)

    async def delete(self, key: str) -> None:
        """Deletes a key. A marker stays in its place until that fades, if ever: every service may do this."""
        with unavailable(f"{self.name}/{key}"):
            await (await self._kv()).delete(key)

    async def purge(self, key: str) -> None:
        """Removes a key and leaves nothing of it; where services have rights of their own, only the gateway may."""
        with unavailable(f"{self.name}/{key}"):
            await self._js.purge_stream(f"KV_{self.name}", subject=f"$KV.{self.name}.{key}")

    async def keys(self) -> list[str]:
        """The keys at this moment, at most the first 100,000; one that is deleted counts until its marker has faded.

        Asked is the stream itself and not a watcher, which waits for ever for a last entry that fades meanwhile.
        """
        prefix = f"$KV.{self.name}."
        with unavailable(f"the keys of {self.name}"):
            info = await self._js.stream_info(f"KV_{self.name}", subjects_filter=f"{prefix}>")
        return sorted(subject.removeprefix(prefix) for subject in info.state.subjects or {})

    async def entries(self) -> dict[str, Entry]:
        """What is there at this moment, by key. One read for each: for buckets of hundreds."""
        names = await self.keys()
        found = await asyncio.gather(*(self.get(name) for name in names))
        return {name: entry for name, entry in zip(names, found, strict=True) if entry is not None}
