"""What do all parts of the door share? The names of streams and buckets, the broker's errors, one connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from libs.common.errors import MessageTooLarge, Unavailable
from libs.common.settings import CommonSettings

COMMANDS, EVENTS, PROGRESS, DEADLETTERS = "COMMANDS", "EVENTS", "PROGRESS", "DEADLETTERS"
BUCKETS = ("jobs", "control", "leases", "workers")
NOT_REACHED = "the message broker has not been reached yet"
HEADERS = 2048  # bytes left free in every message: the broker counts headers too
AWAY = (NatsError, JetStreamError, OSError, asyncio.TimeoutError)


def without_secrets(url: str) -> str:
    """An address for logs: without the name and password, or token, that it may carry."""
    before, separator, after = url.rpartition("@")
    return f"{before.split('://')[0]}://{after}" if separator else url


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """The broker's own errors become Unavailable, naming what could not be done; what is too large stays so."""
    try:
        yield
    except MaxPayloadError as error:
        raise MessageTooLarge(f"{what} is more than the message broker takes") from error
    except AWAY as error:
        raise Unavailable(f"the message broker did not accept {what}: {type(error).__name__}: {error}") from error


def require_room(what: str, size: int, limit: int) -> None:
    """Raises MessageTooLarge when `size` bytes are more than one message of a broker with this `limit` holds.

    Sending it again would never help, and the broker ends a connection that tries.
    """
    if size > limit - HEADERS:
        raise MessageTooLarge(
            f"{what} has {size} bytes, and one message to the broker holds {limit - HEADERS}",
            size=size,
            limit=limit - HEADERS,
        )


class Connected:
    """A connection to the broker, for one service."""

    def __init__(self, client: Client, settings: CommonSettings, service: str) -> None:
        self._nc = client
        self._js: JetStreamContext = client.jetstream(timeout=5.0)
        self._settings = settings
        self.service = service
        self._stores: dict[str, KeyValue] = {}
        self._closing = asyncio.Event()

    @property
    def is_connected(self) -> bool:
        return self._nc.is_connected
