"""A client of live feeds that comes back with its last id, as browsers do."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import httpx

from libs.common.bus import Bus
from libs.common.events import JobChanged
from libs.common.jobs import JobState
from tests.waiting import PATIENCE, until


async def until_end_is_told(bus: Bus, job_id: str, state: JobState = JobState.completed) -> None:
    """Waits until the newest word of a job's feed is its end."""

    async def is_told() -> bool:
        message = (await bus.feed_head(job_id))[1]
        return message is not None and isinstance(told := message.open(), JobChanged) and told.state is state

    await until(is_told)


@dataclass
class Watcher:
    """Everything that one client saw of one job, over as many connections as it took."""

    url: str
    headers: dict[str, str]
    last_id: str | None = None
    events: list[tuple[int, str, dict[str, Any]]] = field(default_factory=list)
    comments: int = 0
    connections: int = 0
    status: int = 0

    async def once(self, stop_after: int | None = None) -> None:
        """One connection, until it ends or `stop_after` more events came. Raises httpx.TransportError."""
        headers = self.headers | ({"Last-Event-ID": self.last_id} if self.last_id is not None else {})
        seen = 0
        async with (
            httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client,
            client.stream("GET", self.url, headers=headers) as response,
        ):
            self.status = response.status_code
            self.connections += 1
            response.raise_for_status()
            event: dict[str, str] = {}
            async for line in response.aiter_lines():
                if line.startswith(":"):
                    self.comments += 1
                elif line:
                    name, _, value = line.partition(":")
                    event[name] = value.removeprefix(" ")
                elif "data" in event:
                    self.last_id = event["id"]
                    self.events.append((int(event["id"]), event["event"], json.loads(event["data"])))
                    event = {}
                    seen += 1
                    if stop_after is not None and seen >= stop_after:
                        return
                else:
                    event = {}

    async def has_begun(self) -> None:
        """Waits for the first event."""
        await until(lambda: self.events)

    async def until_over(self, seconds: float = 2 * PATIENCE) -> None:
        """Comes back again and again until the feed says that there is no more (204)."""
        async with asyncio.timeout(seconds):
            while self.status != 204:
                try:
                    await self.once()
                except (httpx.TransportError, httpx.HTTPStatusError):
                    await asyncio.sleep(0.2)

    @property
    def following(self) -> list[tuple[int, str, dict[str, Any]]]:
        """What came after the snapshots."""
        return [event for event in self.events if event[1] != "snapshot"]
