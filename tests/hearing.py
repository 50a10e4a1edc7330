"""What does the bus tell? All events that a test's services publish, each once, in order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.events import Event
from tests.waiting import PATIENCE


class Events:
    """All events so far."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self.ids: list[str] = []

    @property
    def facts(self) -> list[str]:
        return [event.fact for event in self.seen]

    def of(self, fact: str, job: str | None = None) -> list[Any]:
        return [e for e in self.seen if e.fact == fact and job in (None, e.job_id)]

    async def wait_for(self, fact: str, count: int = 1, job: str | None = None, seconds: float = PATIENCE) -> Any:
        """The newest event of that fact; a step that failed meanwhile ends the wait with its problem."""
        deadline = time.monotonic() + seconds
        while len(self.of(fact, job)) < count:
            if fact != "step_failed" and (failed := self.of("step_failed", job)):
                raise AssertionError(f"the step failed: {failed[-1].problem}")
            assert time.monotonic() < deadline, f"no {count} x {fact} among {self.facts}"
            await asyncio.sleep(0.02)
        return self.of(fact, job)[-1]

    async def read(self, bus: Bus) -> None:
        """Endless. What comes again, because its acknowledgement met a broker that was away, is counted once.

        A broker that has lost its store numbers from 1 again, so a number alone tells nothing.
        """
        known: set[tuple[int, str]] = set()
        async for delivery in bus.events("test"):
            if (delivery.sequence, delivery.envelope.id) not in known:
                event = delivery.envelope.open()
                assert isinstance(event, Event)
                known.add((delivery.sequence, delivery.envelope.id))
                self.seen.append(event)
                self.ids.append(delivery.envelope.id)
            with contextlib.suppress(Unavailable):
                await delivery.ack()


@contextlib.asynccontextmanager
async def heard(bus: Bus) -> AsyncIterator[Events]:
    """The events from the beginning of the stream, while the block lasts."""
    events = Events()
    reader = asyncio.create_task(events.read(bus))
    yield events
    reader.cancel()
