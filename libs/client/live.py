"""How does a program convert speech while it is spoken? PCM blocks over a WebSocket; the one door to `websockets`.

with LiveConversion(client, voice="anna", sample_rate=48000, pitch_shift=3) as live:
    live.send(pcm)                 # mono, s16le, of any length
    for block in live.received():  # what has come back
        play(block)
"""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any, Self

from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from libs.client.api import Client
from libs.client.errors import ApiProblem, NotReachable, SignInNeeded
from libs.client.http import PREFIX
from libs.client.models import Problem

DONE = 1000


class LiveConversion:
    """One session. `ready` tells rates and block sizes, `stats` the newest times, `overruns` the blocks dropped.

    `refused` are the problems of what was said and not obeyed, such as a `change` out of its range; the stream goes on.
    """

    def __init__(self, client: Client, voice: str, sample_rate: int, **settings: Any) -> None:
        """Connects with a ticket and waits until it is ready. Raises ApiProblem, SignInNeeded, NotReachable."""
        ticket = client.connection.request("POST", "/ws/tickets").json()["ticket"]
        url = "ws" + client.connection.url.removeprefix("http") + f"{PREFIX}/ws/convert?ticket={ticket}"
        self._closing = ExitStack()
        try:
            opened = connect(url, compression=None, max_size=None, close_timeout=2)
            self._socket: ClientConnection = self._closing.enter_context(opened)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise NotReachable(f"No live conversion at {client.connection.url}: {error}") from error
        self.ready: dict[str, Any] = {}
        self.stats: dict[str, Any] = {}
        self.overruns = 0
        self.refused: list[Problem] = []
        self._problem: Problem | None = None  # of the last message; what follows it shows that it ended nothing
        self._blocks: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._is_ready = threading.Event()
        self._reader = threading.Thread(target=self._read, name="live", daemon=True)
        self._reader.start()
        try:
            self._say({"voice_id": voice, "sample_rate": sample_rate, "format": "s16le"} | settings)
            self._is_ready.wait(60)
            if not self.ready:
                raise self._refusal()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, pcm: bytes) -> None:
        """More speech. Raises ApiProblem when the session was ended."""
        try:
            self._socket.send(pcm)
        except ConnectionClosed as error:
            raise self._refusal() from error

    def change(self, **settings: Any) -> None:
        """Turns settings, such as pitch_shift, from the next block on. What cannot be is added to `refused`."""
        self._say({"type": "settings"} | settings)

    def end(self) -> None:
        """No more will be sent; what is on its way still comes."""
        self._say({"type": "end"})

    def received(self, *, wait: bool = False) -> Iterator[bytes]:
        """Blocks that have come back; with `wait` all until the session's end.

        Raises ApiProblem when the session ended otherwise than in good order (close code 1000).
        """
        while True:
            try:
                block = self._blocks.get(block=wait)
            except queue.Empty:
                return
            if block is None:
                self._blocks.put(None)
                if self._socket.close_code != DONE:
                    raise self._refusal()
                return
            yield block

    def close(self) -> None:
        self._closing.close()
        self._reader.join(5)

    def _say(self, message: dict[str, Any]) -> None:
        try:
            self._socket.send(json.dumps(message))
        except ConnectionClosed as error:
            raise self._refusal() from error

    def _read(self) -> None:
        try:
            # However the session ends, `received` judges its close code: here it is only the end of the messages.
            with suppress(WebSocketException):
                for message in self._socket:
                    self._problem = None
                    if isinstance(message, bytes):
                        self._blocks.put(message)
                    else:
                        self._hear(json.loads(message))
        finally:
            self._blocks.put(None)
            self._is_ready.set()

    def _hear(self, message: dict[str, Any]) -> None:
        match message.get("type"):
            case "ready":
                self.ready = message
                self._is_ready.set()
            case "stats":
                self.stats = message
            case "overrun":
                self.overruns = int(message["in_all"])
            case "error":
                self._problem = Problem.model_validate(message["problem"])
                self.refused.append(self._problem)

    def _refusal(self) -> ApiProblem:
        problem = self._problem or Problem(title="The live conversion has ended", code="closed", retryable=True)
        return (SignInNeeded if problem.status in (401, 403) else ApiProblem)(problem)
