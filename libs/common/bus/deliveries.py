"""What does a receiver have in hand? One message, to be acknowledged, given back, or ended."""

from __future__ import annotations

from datetime import timedelta

from nats.aio.msg import Msg

from libs.common.bus.broker import unavailable
from libs.common.events import Envelope


class Delivery:
    """One message in hand: acknowledge it, give it back, or end it."""

    def __init__(self, msg: Msg) -> None:
        self._msg = msg
        self.subject = msg.subject
        self.sequence = msg.metadata.sequence.stream
        self.deliveries = msg.metadata.num_delivered or 1
        self.raw = msg.data

    @property
    def envelope(self) -> Envelope:
        """Raises ValueError when the message is not a CloudEvent."""
        return Envelope.model_validate_json(self.raw)

    async def ack(self) -> None:
        """Ends the message, waiting for the broker's word; raises Unavailable when that does not come."""
        with unavailable("an acknowledgement"):
            await self._msg.ack_sync(timeout=5.0)

    async def nak(self, delay: timedelta | None = None) -> None:
        with unavailable("a message given back"):
            await self._msg.nak(delay=delay.total_seconds() if delay else None)

    async def term(self) -> None:
        with unavailable("the end of a message"):
            await self._msg.term()

    async def in_progress(self) -> None:
        with unavailable("a sign of life"):
            await self._msg.in_progress()
