"""How does one live conversion pass through the gateway? Message by message, both ways, until either side ends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from functools import partial
from typing import Any

from fastapi import WebSocket
from starlette.websockets import WebSocketDisconnect

from libs.common import tasks
from libs.common.errors import Forbidden, InvalidInput, PlatformError, Unauthenticated, Unavailable, WorkFailed
from libs.common.logs import get_logger
from libs.common.sockets import RESTART, close, read_message, refuse
from services.gateway.accounts import scopes
from services.gateway.accounts.current import Caller, caller_of
from services.gateway.accounts.tables import Role
from services.gateway.audit import audit
from services.gateway.live import tickets
from services.gateway.live.inner_socket import InnerClosed, InnerSocket, connected
from services.gateway.parts import Parts
from services.gateway.voices import registry

log = get_logger("gateway.live")

_ABNORMAL = (1005, 1006, 1015)  # these never stand in a close message


async def serve(parts: Parts, socket: WebSocket) -> None:
    """One session, from the handshake to the close. Every refusal is a message with its problem, and a close code."""
    await socket.accept()
    try:
        caller = await _caller(parts, socket)
        with parts.live.place(caller.id, parts.settings.live_sessions_per_user):
            start = await _start(parts, caller, socket)
            async with connected(parts.settings) as inner:
                with contextlib.suppress(InnerClosed):  # it has refused already, and its reason is on the way
                    await inner.send(json.dumps(start))
                await _relay(socket, inner)
    except WebSocketDisconnect:
        return
    except InnerClosed as closed:
        if closed.code in _ABNORMAL:
            await refuse(socket, Unavailable("inference broke off the stream", service="inference"))
        else:
            await close(socket, closed.code, closed.reason)
    except PlatformError as error:
        log.info("live.refused", code=error.code, detail=error.detail)
        await refuse(socket, error)
    except Exception as error:
        log.error("live.unexpected", error=f"{type(error).__name__}: {error}", exc_info=error)
        await refuse(socket, WorkFailed("the stream cannot be passed on"))


async def _caller(parts: Parts, socket: WebSocket) -> Caller:
    """By `Authorization: Bearer`, or by a ticket in the address. An access token in the address is not looked at."""
    ticket = socket.query_params.get("ticket")
    if ticket:
        caller = await tickets.redeem(parts, ticket)
    else:
        scheme, _, token = socket.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated(
                "a live conversion needs an access token, or a ticket",
                reason="token_missing",
                actions=("Send `Authorization: Bearer …`, or ?ticket= from POST /api/v1/ws/tickets.",),
            )
        caller = await caller_of(parts, token.strip())
        scopes.check(caller, "POST", "/api/v1/ws/convert")
    if caller.role is Role.viewer:
        raise Forbidden("viewers may look, and not make or change anything")
    return caller


async def _start(parts: Parts, caller: Caller, socket: WebSocket) -> dict[str, Any]:
    """The first message with the voice's slug for its name; what else it asks for is inference's to judge."""
    try:
        async with asyncio.timeout(parts.settings.live_handshake.total_seconds()):
            first = await socket.receive()
    except TimeoutError:
        raise InvalidInput("no first message came", field="message") from None
    if first["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(first.get("code", 1005))
    if first.get("text") is None:
        raise InvalidInput("the first message must be JSON that names voice_id and sample_rate", field="message")
    start = read_message(first["text"])
    key = next((start.pop(name) for name in ("voice_id", "voice") if name in start), None)
    if not isinstance(key, str) or not key.strip():
        raise InvalidInput("the voice is not named", field="voice_id", actions=("Send a voice's id, slug or name.",))
    async with parts.database.write() as session:
        voice = await registry.find_ready(session, caller, key)
        audit.record(session, caller.id, "voice.used", voice.id, live=True)
    return start | {"voice": voice.slug}


async def _relay(socket: WebSocket, inner: InnerSocket) -> None:
    """Until either side ends it; raises InnerClosed or WebSocketDisconnect."""
    await tasks.together(partial(_inwards, socket, inner), partial(_outwards, socket, inner), partial(_closing, socket))


async def _inwards(socket: WebSocket, inner: InnerSocket) -> None:
    """What the client says. When inference has closed, its last words are still on their way: `_outwards` ends it."""
    is_open = True
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if is_open:
            try:
                await inner.send(text if text is not None else message.get("bytes") or b"")
            except InnerClosed:
                is_open = False


async def _outwards(socket: WebSocket, inner: InnerSocket) -> None:
    while True:
        message = await inner.receive()
        if isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)


async def _closing(socket: WebSocket) -> None:
    await socket.app.state.closing.wait()
    raise InnerClosed(RESTART, "the service restarts")
