"""What can be asked about live conversion? A ticket for a browser, and the WebSocket itself."""

from __future__ import annotations

from fastapi import WebSocket
from pydantic import BaseModel, Field

from services.gateway.accounts.current import Creator
from services.gateway.live import tickets
from services.gateway.live.relay import serve
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import problems, router

live_router = router("/ws", "live")


class TicketOut(BaseModel):
    """For the address of one WebSocket: `…/ws/convert?ticket=…`."""

    ticket: str = Field(description="Works once")
    expires_in: int = Field(description="Seconds", examples=[30])


@live_router.post("/tickets", operation_id="create_ticket", summary="A ticket for a WebSocket", responses=problems(403))
async def create_ticket(caller: Creator, parts: SharedParts) -> TicketOut:
    """For browsers, which cannot send a token with a WebSocket. It opens one `/ws/convert`, within a short time."""
    lifetime = parts.settings.live_ticket_lifetime
    return TicketOut(ticket=await tickets.issue(parts, caller, lifetime), expires_in=int(lifetime.total_seconds()))


@live_router.websocket("/convert")
async def convert_live(socket: WebSocket) -> None:
    """Speech in, block by block, and the same speech in another voice out; see docs/live.md."""
    parts: Parts = socket.app.state.parts
    await serve(parts, socket)
