"""Who is converted next? A few at once, some may wait, the rest are asked to come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from libs.common.errors import Busy
from libs.common.metrics import INFERENCE_IN_HAND


class Room:
    """`at_once` compute and `waiting` wait; one more raises Busy with an estimate of when to come back."""

    def __init__(self, at_once: int, waiting: int, what: str = "conversions") -> None:
        self.at_once = at_once
        self._what = what
        self._most = at_once + waiting
        self._inside = 0
        self._usual_seconds = 2.0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place inside; raises Busy when there is none."""
        if self._inside >= self._most:
            wait = self._usual_seconds * self._inside / self.at_once
            raise Busy(
                f"{self._inside} {self._what} are in hand or waiting, which is the limit", retry_after=max(wait, 1.0)
            )
        self._inside += 1
        INFERENCE_IN_HAND.inc()
        try:
            yield
        finally:
            self._inside -= 1
            INFERENCE_IN_HAND.dec()

    def took(self, seconds: float) -> None:
        """Remembers how long one of them computed."""
        self._usual_seconds = 0.8 * self._usual_seconds + 0.2 * seconds


class ConversionQueue:
    """Turns in the order of arrival, `at_once` at the same time."""

    def __init__(self, at_once: int, waiting: int, what: str = "conversions") -> None:
        self._room = Room(at_once, waiting, what)
        self._turn = asyncio.Semaphore(at_once)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A turn for work that nobody waits for: it is never refused, and takes no place of those who wait."""
        async with self._turn:
            yield

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Waits for its turn inside; raises Busy when too many wait."""
        with self._room.admitted():
            async with self._turn:
                loop = asyncio.get_running_loop()
                started = loop.time()
                yield
                self._room.took(loop.time() - started)
