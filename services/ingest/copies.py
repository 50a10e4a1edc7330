"""How do originals outlive this node? Each is copied to the object store in the background.

An upload never waits for the store and never fails because of it. A copy that is lost, because the store was away until
the service ended, is made when the dataset is validated, which every training begins with.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from libs.common.paths import Paths, sample_key, sample_prefix
from libs.common.storage import Storage, delete_all
from libs.common.tasks import end
from services.ingest.settings import IngestSettings

log = get_logger("ingest.copies")

_Item = tuple[str, str, str]


class Copies:
    """Copies originals to the bucket of samples, one at a time, until each is there."""

    def __init__(self, settings: IngestSettings, paths: Paths, storage: Storage) -> None:
        self._paths = paths
        self._storage = storage
        self._bucket = settings.voice_samples_bucket
        self._pause = settings.copy_retry.total_seconds()
        self._waiting: dict[_Item, None] = {}
        self._has_work = asyncio.Event()
        self._turn = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="copies")

    async def close(self) -> None:
        if self._task is not None:
            await end([self._task])

    def add(self, dataset: str, sha256: str, extension: str) -> None:
        """Has an original copied when its object is not there yet."""
        self._waiting[(dataset, sha256, extension)] = None
        self._has_work.set()

    async def remove_file(self, dataset: str, sha256: str) -> None:
        """Removes the copies of one recording. Raises Unavailable when the store is away: say it again later."""
        await self._remove(dataset, f"{sample_prefix(dataset)}{sha256}.", lambda item: item[:2] == (dataset, sha256))

    async def remove_dataset(self, dataset: str) -> None:
        """Removes all copies of a dataset. Raises Unavailable when the store is away: say it again later."""
        await self._remove(dataset, sample_prefix(dataset), lambda item: item[0] == dataset)

    async def _remove(self, dataset: str, prefix: str, is_meant: Callable[[_Item], bool]) -> None:
        for item in [item for item in self._waiting if is_meant(item)]:
            del self._waiting[item]
        async with self._turn:
            await asyncio.to_thread(delete_all, self._storage, self._bucket, prefix)

    async def _run(self) -> None:
        while True:
            if not self._waiting:
                self._has_work.clear()
                await self._has_work.wait()
            item = next(iter(self._waiting))
            try:
                async with self._turn:
                    await asyncio.to_thread(self._copy, item)
            except (PlatformError, OSError) as error:
                log.warning("copy.delayed", waiting=len(self._waiting), error=str(error))
                if self._waiting.pop(item, item) is None:
                    self._waiting[item] = None  # to the end: one that the store never takes holds no other up
                await asyncio.sleep(self._pause)
            else:
                self._waiting.pop(item, None)

    def _copy(self, item: _Item) -> None:
        dataset, sha256, extension = item
        source = self._paths.uploads(dataset).original(sha256, extension)
        key = sample_key(dataset, sha256, extension)
        if not source.is_file() or self._storage.size(self._bucket, key) == source.stat().st_size:
            return
        self._storage.put_file(self._bucket, key, source)
        if not source.is_file():  # removed meanwhile, perhaps by another replica
            self._storage.delete(self._bucket, key)
