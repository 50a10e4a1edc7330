"""What do all parts of the door share? The names of streams and buckets, the broker's errors, one connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.errors import Error as JetStreamError
from nats.js.kv import KeyValue

from libs.common.errors import Unavailable
from libs.common.settings import CommonSettings

COMMANDS, EVENTS, PROGRESS, DEADLETTERS = "COMMANDS", "EVENTS", "PROGRESS", "DEADLETTERS"
BUCKETS = ("jobs", "control", "leases", "workers")
AWAY = (NatsError, JetStreamError, OSError, asyncio.TimeoutError)


def without_secrets(url: str) -> str:
    """An address for logs: without the name and password, or token, that it may carry."""
    before, separator, after = url.rpartition("@")
    return f"{before.split('://')[0]}://{after}" if separator else url


@contextlib.contextmanager
def unavailable(what: str) -> Iterator[None]:
    """The broker's own errors become Unavailable, naming what could not be done."""
    try:
        yield
    except AWAY as error:
        raise Unavailable(f"the message broker did not accept {what}: {type(error).__name__}: {error}") from error


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
