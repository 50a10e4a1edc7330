"""How does a service speak? Commands, events and states are confirmed by the broker; progress is best effort."""

from __future__ import annotations

import contextlib
from typing import Any

from nats.js.errors import APIError, NotFoundError

from libs.common import tracing
from libs.common.bus.broker import AWAY, COMMANDS, Connected, require_room, unavailable
from libs.common.bus.deliveries import Delivery
from libs.common.errors import Unavailable
from libs.common.events import Command, Event, JobChanged, StepProgress, wrap
from libs.common.jobs import Lane
from libs.common.logs import current_traceparent


class Sending(Connected):
    """Puts messages into streams, each under an id by which the broker knows it again."""

    def _sealed(self, message: Command | Event | JobChanged, subject: str, message_id: str) -> bytes:
        envelope = wrap(
            message, id=message_id, subject=subject, service=self.service, traceparent=current_traceparent()
        )
        payload = envelope.model_dump_json().encode()
        require_room(f"a message on {subject}", len(payload), self._nc.max_payload)
        return payload

    def require_room_for(self, event: Event, *, event_id: str) -> None:
        """Raises MessageTooLarge when the event could never be sent."""
        self._sealed(event, event.subject(), event_id)

    async def _publish(self, message: Command | Event | JobChanged, subject: str, message_id: str) -> int:
        name = f"send {type(message).__name__}"
        with tracing.span(name, "producer", current_traceparent(), messaging_destination_name=subject):
            return await self._publish_raw(subject, self._sealed(message, subject, message_id), message_id)

    async def _publish_raw(self, subject: str, payload: bytes, message_id: str) -> int:
        if not self._nc.is_connected:
            raise Unavailable("the message broker is not connected")
        with unavailable(f"a message on {subject}"):
            ack = await self._js.publish(subject, payload, timeout=5.0, headers={"Nats-Msg-Id": message_id})
        return ack.seq

    async def send_command(self, command: Command, lane: Lane) -> int:
        """Returns the stream sequence.

        Raises Unavailable when the broker is away or the stream is full, MessageTooLarge when it never fits.
        """
        return await self._publish(command, command.subject(lane), command.message_id)

    async def delete_command(self, sequence: int) -> bool:
        """Removes a command that nobody has finished; False when it is gone already."""
        with unavailable("the removal of a command"):
            try:
                return await self._js.delete_msg(COMMANDS, sequence)
            except NotFoundError:
                return False
            except APIError as error:
                if error.err_code in (10037, 10043, 10057):  # no message found, or sequence not found
                    return False
                raise

    async def publish_event(self, event: Event, *, event_id: str) -> int:
        return await self._publish(event, event.subject(), event_id)

    async def publish_state(self, changed: JobChanged, *, message_id: str) -> int:
        return await self._publish(changed, changed.subject(), message_id)

    async def publish_progress(self, progress: StepProgress) -> None:
        """Best effort: a lost line of progress is followed by the next one."""
        if not self._nc.is_connected:
            return
        envelope = wrap(
            progress,
            id=f"{progress.job_id}.{progress.step}.{progress.token}.{progress.done}.{progress.fraction:.6f}",
            subject=progress.subject(),
            service=self.service,
        )
        with contextlib.suppress(*AWAY):
            await self._nc.publish(progress.subject(), envelope.model_dump_json().encode())

    async def dead_letter(self, delivery: Delivery, problem: dict[str, Any]) -> None:
        """Keeps a message that cannot be worked on, with the reason in its headers, for people to look at."""
        if not self._nc.is_connected:
            raise Unavailable("the message broker is not connected")
        with unavailable("a dead letter"):
            await self._js.publish(
                f"dead.{delivery.subject}",
                delivery.raw,
                headers={
                    "Voicewright-Problem": str(problem.get("code", "")),
                    "Voicewright-Detail": " ".join(str(problem.get("detail", "")).split())[:500],
                    "Voicewright-Sequence": str(delivery.sequence),
                },
            )
