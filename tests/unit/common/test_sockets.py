"""Does whoever is refused over a WebSocket hear why, whatever the reason's length and whoever has gone first?"""

from __future__ import annotations

from typing import Any

import pytest
from starlette.websockets import WebSocket, WebSocketState

from libs.common.errors import NotFound, PlatformError
from libs.common.sockets import DONE, close, refuse


class Connection:
    """An accepted WebSocket of the ASGI kind, and what was sent over it; a client that `has_gone` takes nothing."""

    def __init__(self, *, has_gone: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self.tried = 0
        self._has_gone = has_gone
        self.socket = WebSocket({"type": "websocket"}, self._receive, self._send)
        self.socket.client_state = self.socket.application_state = WebSocketState.CONNECTED

    async def _receive(self) -> dict[str, Any]:
        raise AssertionError("nobody reads")

    async def _send(self, message: Any) -> None:
        self.tried += 1
        if self._has_gone:
            raise OSError("the connection is closed")
        self.sent.append(dict(message))


async def test_a_refusal_is_a_message_with_its_problem_and_a_close_code_that_says_the_same() -> None:
    connection = Connection()

    await refuse(connection.socket, NotFound("there is no voice 'anna'"))

    told, closed = connection.sent
    assert '"detail": "there is no voice \'anna\'"' in told["text"]
    assert (closed["type"], closed["code"], closed["reason"]) == ("websocket.close", 4404, NotFound.title())


async def test_a_client_that_has_gone_is_no_error() -> None:
    refused, closed = Connection(has_gone=True), Connection(has_gone=True)

    await refuse(refused.socket, PlatformError("too late"))
    await close(closed.socket, DONE, "")

    assert (refused.tried, closed.tried) == (1, 1)  # and not once more


async def test_what_is_closed_already_is_not_closed_again() -> None:
    connection = Connection()

    await close(connection.socket, DONE, "first")
    await close(connection.socket, DONE, "second")

    assert [message["reason"] for message in connection.sent] == ["first"]


@pytest.mark.parametrize("reason", ["x" * 500, "ü" * 500, "short"])
async def test_a_reason_fits_into_a_close_message(reason: str) -> None:
    connection = Connection()

    await close(connection.socket, DONE, reason)

    said = connection.sent[0]["reason"]
    assert reason.startswith(said)
    assert min(len(reason.encode()), 122) <= len(said.encode()) <= 123
