"""How does the gateway reach inference's WebSocket? The one door to the `websockets` client."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from libs.common.errors import Unavailable
from libs.common.logs import current_traceparent, request_id
from services.gateway.settings import GatewaySettings

MESSAGE_BYTES = 1024 * 1024
_QUEUED = 8  # messages that are read ahead: more would be old sound


class InnerClosed(Exception):
    """The other side has closed, with this code and reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class InnerSocket:
    """A connection to inference's `/live`."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def send(self, message: str | bytes) -> None:
        """Raises InnerClosed."""
        try:
            await self._connection.send(message)
        except ConnectionClosed as error:
            raise _closed(error) from error

    async def receive(self) -> str | bytes:
        """Raises InnerClosed."""
        try:
            return await self._connection.recv()
        except ConnectionClosed as error:
            raise _closed(error) from error


def _closed(error: ConnectionClosed) -> InnerClosed:
    return InnerClosed(error.rcvd.code, error.rcvd.reason) if error.rcvd is not None else InnerClosed(1006, "")


@asynccontextmanager
async def connected(settings: GatewaySettings) -> AsyncIterator[InnerSocket]:
    """A connection that is closed with the block; raises Unavailable when there is none to be had."""
    url = "ws" + settings.inference_url.rstrip("/").removeprefix("http") + "/live"
    headers = {"Authorization": f"Bearer {settings.service_token.get_secret_value()}"}
    if request_id.get():
        headers["X-Request-Id"] = request_id.get()
    if trace := current_traceparent():
        headers["traceparent"] = trace
    try:
        connection = await connect(
            url,
            additional_headers=headers,
            compression=None,
            max_size=MESSAGE_BYTES,
            max_queue=_QUEUED,
            open_timeout=min(settings.inner_timeout.total_seconds(), 5.0),
            close_timeout=1.0,
            proxy=None,
            user_agent_header=None,
        )
    except (OSError, TimeoutError, WebSocketException) as error:
        raise Unavailable("inference is not reachable", service="inference") from error
    try:
        yield InnerSocket(connection)
    finally:
        with contextlib.suppress(OSError, WebSocketException):
            await connection.close()
