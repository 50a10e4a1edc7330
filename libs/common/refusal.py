"""How does a client that is still sending hear that it was refused?

A server that closes a connection with unread data in it resets it, and the reset may overtake the answer. So the answer
goes out at once, what still comes is thrown away for a moment, and then the connection is closed.
"""

from __future__ import annotations

import asyncio
import contextlib

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LINGER_SECONDS = 1.0


class EarlyRefusals:
    """Closes the connection after an answer that came before the end of the request's body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        names = {name for name, _ in scope["headers"]}
        is_complete = b"content-length" not in names and b"transfer-encoding" not in names
        is_refused = False

        async def watched_receive() -> Message:
            nonlocal is_complete
            message = await receive()
            if message["type"] == "http.disconnect" or not message.get("more_body", False):
                is_complete = True
            return message

        async def drain() -> None:
            while not is_complete:
                await watched_receive()

        async def watched_send(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start" and not is_complete:
                is_refused = True
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
            # With `Expect: 100-continue` the client waits for a word and has sent nothing; reading would ask it to.
            if is_refused and is_last and not is_complete and b"expect" not in names:
                await send({**message, "more_body": True})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(drain(), _LINGER_SECONDS)
                message = {"type": "http.response.body", "body": b"", "more_body": False}
            await send(message)

        await self._app(scope, watched_receive, watched_send)
