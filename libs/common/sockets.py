"""How are errors told over a WebSocket? As a message with problem details, then a close code that says the same.

A close code of 4000 and more is 4000 + the status that HTTP would have: 4401 sign in, 4404 no such voice, 4422 cannot
be accepted, 4429 too many. Others have their meaning of RFC 6455: 1000 done, 1012 the service restarts, come again.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from libs.common.errors import InvalidInput, PlatformError, TooLarge
from libs.common.logs import request_id
from libs.common.problems import as_told

DONE = 1000
RESTART = 1012
MESSAGE_BYTES = 65_536
"""Of a text message; PCM comes in binary ones."""
_REASON_BYTES = 123  # 125 of a control frame (RFC 6455, 5.5) less two of the code


def close_code(error: PlatformError) -> int:
    """The code with which a session ends because of `error`."""
    return 4000 + error.status


def error_message(socket: WebSocket, error: PlatformError) -> str:
    """`{"type": "error", "problem": …}`."""
    problem = as_told(socket.app, error) if "app" in socket.scope else error.problem()
    if request_id.get():
        problem.setdefault("request_id", request_id.get())
    return json.dumps({"type": "error", "problem": problem})


def read_message(text: str) -> dict[str, Any]:
    """A JSON object from a text message; raises InvalidInput, TooLarge."""
    if len(text) > MESSAGE_BYTES:
        raise TooLarge(f"a text message has at most {MESSAGE_BYTES} characters", limit_bytes=MESSAGE_BYTES)
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the message is no JSON: {error}"[:300], field="message") from error
    if not isinstance(message, dict):
        raise InvalidInput("the message must be a JSON object", field="message")
    return message


async def refuse(socket: WebSocket, error: PlatformError) -> None:
    """Tells `error` and closes with its code. A client that has gone is no error."""
    with contextlib.suppress(RuntimeError, WebSocketDisconnect):
        await socket.send_text(error_message(socket, error))
    await close(socket, close_code(error), error.title())


async def close(socket: WebSocket, code: int, reason: str) -> None:
    """Closes what is still open. A longer reason than a close message holds is cut."""
    if socket.application_state is WebSocketState.CONNECTED:
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            await socket.close(code, reason.encode()[:_REASON_BYTES].decode(errors="ignore"))
