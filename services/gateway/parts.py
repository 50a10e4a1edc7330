"""What do the gateway's domains share while it runs? Settings, database, bus, and the doors to inner services."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from libs.common.bus import NOT_REACHED, Bus
from libs.common.errors import Unavailable
from libs.common.paths import Paths
from libs.common.storage import Storage
from services.gateway.database import Database
from services.gateway.inner import InnerService
from services.gateway.live.places import LiveSessions
from services.gateway.settings import GatewaySettings


@dataclass
class Parts:
    """One running gateway. `connected` is None until the broker has been reached for the first time."""

    settings: GatewaySettings
    paths: Paths
    database: Database
    ingest: InnerService
    inference: InnerService
    storage: Storage
    connected: Bus | None = None
    absence: str = NOT_REACHED
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    metadata_turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    live: LiveSessions = field(default_factory=LiveSessions)

    @property
    def bus(self) -> Bus:
        """The bus; raises Unavailable, with what was found, while the broker is not there or not ready."""
        if self.connected is None:
            raise Unavailable(self.absence)
        return self.connected


def parts_of(request: Request) -> Parts:
    """The parts of the app that answers this request."""
    parts: Parts = request.app.state.parts
    return parts


async def _shared(request: Request) -> Parts:
    # A dependency that is no coroutine is called on a thread, which costs more than all of this one's work.
    return parts_of(request)


SharedParts = Annotated[Parts, Depends(_shared)]
