"""Who is converted next? A few at once, some may wait, the rest are asked to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.common.errors import Busy


class ConversionQueue:
    """`at_once` compute, `waiting` may wait in order; one more raises Busy with an estimate of when to come back."""

    def __init__(self, at_once: int, waiting: int) -> None:
        self._turn = asyncio.Semaphore(at_once)
        self._at_once = at_once
        self._most = at_once + waiting
        self._inside = 0
        self._usual_seconds = 2.0

    @property
    def inside(self) -> int:
        return self._inside

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Waits for its turn inside; raises Busy when too many wait."""
        if self._inside >= self._most:
            wait = self._usual_seconds * self._inside / self._at_once
            raise Busy(
                f"{self._inside} conversions are in hand or waiting, which is the limit", retry_after=max(wait, 1.0)
            )
        self._inside += 1
        try:
            async with self._turn:
                loop = asyncio.get_running_loop()
                started = loop.time()
                yield
                self._usual_seconds = 0.8 * self._usual_seconds + 0.2 * (loop.time() - started)
        finally:
            self._inside -= 1
