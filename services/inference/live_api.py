"""What is said over the WebSocket of a live conversion? JSON about the stream in text messages, PCM in binary ones.

client  start ───────────────▶ PCM PCM PCM … settings … PCM end
here          ready ◀─────── PCM PCM … stats … overrun … PCM stats ─ close 1000
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, WebSocket
from starlette.websockets import WebSocketDisconnect

from libs.common import metrics, tasks
from libs.common.errors import Busy, InvalidInput, PlatformError, RecordingTooLong, WorkFailed
from libs.common.logs import get_logger
from libs.common.sockets import DONE, RESTART, close, error_message, read_message, refuse
from libs.voice.realtime import RealtimeConverter
from services.inference.live import LiveSession, LiveStart
from services.inference.settings import InferenceSettings
from services.inference.voices import LoadedVoice, Voices

log = get_logger("live")


class SessionIdle(PlatformError):
    """Nothing was heard for too long"""

    status = 408
    code = "session_idle"
    suggested_actions = ("Connect again when there is sound.",)


class _Closing(Exception):
    """The service is asked to go."""


class LiveSessions:
    """At most `most` streams at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.now = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place for one stream; raises Busy when all are taken."""
        if self.now >= self._most:
            raise Busy(f"{self.now} live conversions run, which is the limit", retry_after=5.0)
        self.now += 1
        metrics.LIVE_SESSIONS.inc()
        try:
            yield
        finally:
            self.now -= 1
            metrics.LIVE_SESSIONS.dec()


def make_live_router(settings: InferenceSettings, voices: Voices, sessions: LiveSessions) -> APIRouter:
    """The router of `/live`."""
    router = APIRouter(tags=["conversion"])

    @router.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        try:
            async with sessions.place():
                await _Stream(socket, settings, voices).run()
        except WebSocketDisconnect:
            return
        except _Closing:
            await close(socket, RESTART, "the service restarts")
        except PlatformError as error:
            log.info("live.refused", code=error.code, detail=error.detail)
            await refuse(socket, error)
        except Exception as error:
            log.error("live.unexpected", error=f"{type(error).__name__}: {error}", exc_info=error)
            await refuse(socket, WorkFailed(f"{type(error).__name__}"))

    return router


class _Stream:
    """One session, from its first message to its end."""

    def __init__(self, socket: WebSocket, settings: InferenceSettings, voices: Voices) -> None:
        self._socket = socket
        self._settings = settings
        self._voices = voices
        self._told = asyncio.Lock()

    async def run(self) -> None:
        """Raises what ends the session but for its ordinary end."""
        first = await self._first()
        start = LiveStart.of(first)
        wanted = start.settings()
        voice = await asyncio.to_thread(self._voices.get, start.voice)
        session = await asyncio.to_thread(self._open, voice, start, wanted)
        try:
            await session.warm_up()
            await self._tell(session.ready() | {"voice": voice.slug, "voice_version": voice.version})
            session.heard_at = time.monotonic()
            log.info("live.began", voice=voice.slug, version=voice.version, block=session.block_seconds)
            works = (self._compute, self._listen, self._watch, self._report)
            await tasks.together(*(partial(work, session) for work in works))
        finally:
            session.close()
            log.info("live.ended", voice=voice.slug, blocks=session.blocks, dropped=session.dropped)
        await self._tell(session.stats())
        await close(self._socket, DONE, "")

    def _open(self, voice: LoadedVoice, start: LiveStart, wanted: Any) -> LiveSession:
        parts = voice.converter
        converter = RealtimeConverter(parts.synthesizer, parts.encoder, parts.pitch, parts.index, wanted)
        return LiveSession(converter, start.format, self._settings.live_queue.total_seconds())

    async def _first(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self._settings.live_idle.total_seconds()):
                message = await self._receive()
        except TimeoutError:
            raise SessionIdle("no first message came") from None
        if not isinstance(message, str):
            raise InvalidInput("the first message must be JSON that names voice and sample_rate", field="message")
        return read_message(message)

    async def _receive(self) -> str | bytes:
        """The next message; raises WebSocketDisconnect."""
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    async def _tell(self, message: dict[str, Any]) -> None:
        async with self._told:
            await self._socket.send_text(json.dumps(message))

    async def _listen(self, session: LiveSession) -> None:
        """Takes in what comes, whatever the computing does. Never ends by itself."""
        while True:
            message = await self._receive()
            if isinstance(message, bytes):
                if dropped := session.feed(message):
                    await self._tell({"type": "overrun", "dropped_blocks": dropped, "in_all": session.dropped})
                continue
            try:
                await self._obey(session, read_message(message))
            except InvalidInput as error:
                async with self._told:
                    await self._socket.send_text(error_message(self._socket, error))

    async def _obey(self, session: LiveSession, message: dict[str, Any]) -> None:
        match message.pop("type", None):
            case "settings":
                await session.change(message)
                await self._tell({"type": "settings", **message})
            case "end":
                session.end()
            case other:
                raise InvalidInput(f"type is {other!r}; send settings or end", field="type")

    async def _compute(self, session: LiveSession) -> None:
        """Block after block, until the last after an `end`."""
        while (block := await session.next_block()) is not None:
            pcm = await session.convert(block)
            async with self._told:
                await self._socket.send_bytes(pcm)

    async def _watch(self, session: LiveSession) -> None:
        """Ends the session when its time is up, nothing comes, or the service goes."""
        idle, longest = self._settings.live_idle.total_seconds(), self._settings.live_longest.total_seconds()
        ends = time.monotonic() + longest
        closing: asyncio.Event = self._socket.app.state.closing
        while not closing.is_set():
            now = time.monotonic()
            if now >= ends:
                raise RecordingTooLong(f"a live conversion lasts at most {longest:g} s", actions=("Connect again.",))
            if now - session.heard_at >= idle:
                raise SessionIdle(f"no sound came for {idle:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(closing.wait(), min(ends - now, idle - (now - session.heard_at), idle))
        raise _Closing

    async def _report(self, session: LiveSession) -> None:
        while True:
            await asyncio.sleep(self._settings.live_stats.total_seconds())
            await self._tell(session.stats())
