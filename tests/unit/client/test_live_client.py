"""Does a live session end as the platform ended it? A real socket, and sessions that are written down in each test."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from libs.client.api import Client
from libs.client.errors import ApiProblem
from libs.client.live import LiveConversion
from tests.unit.client.stand_in_gateway import problem

READY = {"type": "ready", "block_seconds": 0.25, "block_samples": 4000, "output_rate": 16000}
REFUSED = {"type": "error", "problem": problem(422, "This cannot be accepted", "pitch_shift is 99")}


@contextmanager
def platform(session: Callable[[ServerConnection], None]) -> Iterator[Client]:
    """A client of a platform whose live sessions are `session`, from their first message on."""

    def handle(socket: ServerConnection) -> None:
        socket.recv()
        session(socket)

    with serve(handle, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        answer = SimpleNamespace(json=lambda: {"ticket": "t"})
        yield cast(Client, SimpleNamespace(connection=SimpleNamespace(url=url, request=lambda *_: answer)))
        server.shutdown()
        thread.join()


def say(socket: ServerConnection, message: dict[str, Any]) -> None:
    socket.send(json.dumps(message))


def test_settings_that_are_refused_do_not_fail_a_session_that_ends_well() -> None:
    def session(socket: ServerConnection) -> None:
        say(socket, READY)
        socket.recv()
        say(socket, REFUSED)
        socket.recv()
        socket.send(b"\1\0" * 10)
        socket.close(1000)

    with platform(session) as client, LiveConversion(client, "anna", 16_000) as live:
        live.change(pitch_shift=99)
        live.send(b"\0\0")
        heard = b"".join(live.received(wait=True))

    assert heard == b"\1\0" * 10
    assert [refused.detail for refused in live.refused] == ["pitch_shift is 99"]


def test_a_session_that_is_ended_for_a_reason_raises_it_after_what_came_before() -> None:
    def session(socket: ServerConnection) -> None:
        say(socket, READY)
        socket.send(b"\1\0")
        say(socket, {"type": "error", "problem": problem(408, "Nothing was heard for too long", "60 s")})
        socket.close(4408)

    with platform(session) as client, LiveConversion(client, "anna", 16_000) as live:
        blocks = live.received(wait=True)

        assert next(blocks) == b"\1\0"
        with pytest.raises(ApiProblem, match="Nothing was heard"):
            next(blocks)


def test_a_session_that_breaks_off_is_not_taken_for_a_whole_one_nor_blamed_on_old_settings() -> None:
    def session(socket: ServerConnection) -> None:
        say(socket, READY)
        say(socket, REFUSED)
        socket.send(b"\1\0")
        socket.close(1012)

    with (
        platform(session) as client,
        LiveConversion(client, "anna", 16_000) as live,
        pytest.raises(ApiProblem, match="The live conversion has ended") as ended,
    ):
        list(live.received(wait=True))

    assert ended.value.problem.retryable


def test_a_session_that_is_given_up_before_it_began_leaves_no_open_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = threading.Event()

    def session(socket: ServerConnection) -> None:
        try:
            socket.recv()
        except ConnectionClosed:
            closed.set()

    plain = LiveConversion._say

    def impatient(self: LiveConversion, message: dict[str, Any]) -> None:
        plain(self, message)
        raise KeyboardInterrupt

    with platform(session) as client:
        monkeypatch.setattr(LiveConversion, "_say", impatient)
        with pytest.raises(KeyboardInterrupt):
            LiveConversion(client, "anna", 16_000)

        assert closed.wait(60)
