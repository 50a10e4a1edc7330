"""How are small things kept that several services share? Key-value buckets with compare-and-set."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NoKeysError
from nats.js.kv import KeyValue

from libs.common.bus.broker import require_room, unavailable
from libs.common.errors import Conflict


@dataclass(frozen=True)
class Entry:
    value: bytes
    revision: int


class Bucket:
    """A key-value bucket with compare-and-set. Writing raises MessageTooLarge for a value that never fits."""

    def __init__(self, kv: Callable[[], Awaitable[KeyValue]], name: str, limit: Callable[[], int]) -> None:
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
        with unavailable(f"{self.name}/{key}"):
            await (await self._kv()).delete(key)

    async def keys(self) -> list[str]:
        with unavailable(f"the keys of {self.name}"):
            try:
                return list(await (await self._kv()).keys())
            except NoKeysError:
                return []
