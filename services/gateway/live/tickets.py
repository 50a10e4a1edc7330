"""How does a browser sign in to a WebSocket? With a ticket that works once, for seconds: addresses end up in logs."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from sqlalchemy import ForeignKey, String, delete
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.errors import Unauthenticated
from services.gateway.accounts.current import Caller, active_account
from services.gateway.database import Base, utcnow
from services.gateway.parts import Parts


class Ticket(Base):
    """A ticket that was not used yet; kept as a hash, as passwords are."""

    __tablename__ = "socket_tickets"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    expires_at: Mapped[datetime] = mapped_column(index=True)


async def issue(parts: Parts, caller: Caller, lifetime: timedelta) -> str:
    """A new ticket of the caller's."""
    ticket = secrets.token_urlsafe(32)
    async with parts.database.write() as session:
        session.add(Ticket(hash=_hash(ticket), user_id=caller.id, expires_at=utcnow() + lifetime))
    return ticket


async def redeem(parts: Parts, ticket: str) -> Caller:
    """Whose ticket it was; it is used up. Raises Unauthenticated when it is none, or none any more."""
    async with parts.database.write() as session:
        used = delete(Ticket).where(Ticket.hash == _hash(ticket)).returning(Ticket.user_id, Ticket.expires_at)
        row = (await session.execute(used)).first()
    if row is None or row.expires_at < utcnow():
        raise Unauthenticated(
            "this ticket was used, has expired, or never was",
            reason="ticket_invalid",
            actions=("Ask for a new one: POST /api/v1/ws/tickets.",),
        )
    return await active_account(parts, row.user_id)


async def sweep(parts: Parts) -> None:
    """Forgets tickets that nobody used."""
    async with parts.database.write() as session:
        await session.execute(delete(Ticket).where(Ticket.expires_at < utcnow()))


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
