"""How does a message travel? In an envelope that names its type, and comes back as that type."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from libs.common.events.commands import Command
from libs.common.events.content import Data
from libs.common.events.facts import Event
from libs.common.events.progress import Progress

SOURCE = "urn:voicewright"

Message = Command | Event | Progress


def _leaves(base: type[Data]) -> list[type[Data]]:
    found: list[type[Data]] = []
    for sub in base.__subclasses__():
        found += _leaves(sub) or [sub]
    return found


def type_name(message: type[Data]) -> str:
    """CloudEvents type, e.g. `voicewright.command.TrainVoice.v1`."""
    kind = "command" if issubclass(message, Command) else "event" if issubclass(message, Event) else "progress"
    return f"voicewright.{kind}.{message.__name__}.v1"


class Envelope(BaseModel):
    """CloudEvents 1.0, JSON format."""

    model_config = ConfigDict(frozen=True)

    specversion: str = "1.0"
    id: str
    source: str
    type: str
    subject: str
    time: datetime
    datacontenttype: str = "application/json"
    traceparent: str | None = None
    data: dict[str, Any]

    def open(self) -> Data:
        """The typed content; raises ValueError for a type that is not in the catalogue or data that does not fit."""
        if self.type not in CATALOGUE:
            raise ValueError(f"unknown message type {self.type!r}")
        return CATALOGUE[self.type].model_validate(self.data)


def wrap(message: Data, *, id: str, subject: str, service: str, traceparent: str | None = None) -> Envelope:
    """`message` in its envelope, ready to be sent."""
    return Envelope(
        id=id,
        source=f"{SOURCE}:{service}",
        type=type_name(type(message)),
        subject=subject,
        time=datetime.now(UTC),
        traceparent=traceparent,
        data=message.model_dump(mode="json"),
    )


COMMANDS = _leaves(Command)
EVENTS = _leaves(Event)
PROGRESS = _leaves(Progress)
CATALOGUE: dict[str, type[Data]] = {type_name(m): m for m in (*COMMANDS, *EVENTS, *PROGRESS)}
