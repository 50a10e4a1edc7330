"""Is an upload known again whatever its boundary and its chunks, and never taken for another?"""

from __future__ import annotations

import asyncio

import pytest
from fastapi import Request
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from libs.common.errors import TooLarge
from services.gateway.body_print import BodyPrint
from services.gateway.inner_upload import UploadStalled
from services.gateway.staging import ClientGone

Part = tuple[bytes, bytes]
few_bytes = st.binary(max_size=12)
parts = st.lists(st.tuples(few_bytes, few_bytes), max_size=3)


def form(parts: list[Part], boundary: bytes) -> bytes:
    mark = b"--" + boundary
    body = b"".join(mark + b"\r\n" + head + b"\r\n\r\n" + content + b"\r\n" for head, content in parts)
    return body + mark + b"--\r\n"


def printed(body: bytes, boundary: str, sizes: list[int] | None = None) -> str:
    made = BodyPrint(f'multipart/form-data; boundary="{boundary}"')
    for size in sizes or []:
        made.feed(body[:size])
        body = body[size:]
    made.feed(body)
    made.finish()
    return made.hexdigest()


@given(parts, st.lists(st.integers(0, 9), max_size=20))
def test_boundary_and_chunks_make_no_difference(found: list[Part], sizes: list[int]) -> None:
    whole = printed(form(found, b"one-7f3a"), "one-7f3a")

    assert printed(form(found, b"another-b1"), "another-b1", sizes) == whole


@given(parts, parts)
def test_forms_that_differ_have_different_prints(one: list[Part], other: list[Part]) -> None:
    first, second = (form(found, b"bound") for found in (one, other))

    assert (printed(first, "bound") == printed(second, "bound")) == (first == second)


def request(*messages: Message) -> Request:
    waiting = list(messages)

    async def receive() -> Message:
        return waiting.pop(0)

    return Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)


def piece(body: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_that_nobody_else_reads_is_read_to_its_end() -> None:
    body = form([(b"name", b"value")], b"bound")
    sent = request(piece(body[:9]), piece(b""), piece(body[9:]), piece(b"", more=False))

    found = await BodyPrint("multipart/form-data; boundary=bound").read(sent, limit=1000, idle=5.0)

    assert found == printed(body, "bound")


async def test_a_body_that_is_too_large_stalls_or_breaks_off_is_refused() -> None:
    endless = request(*[piece(b"x" * 100)] * 20)
    broken = request(piece(b"x"), {"type": "http.disconnect"})

    with pytest.raises(TooLarge):
        await BodyPrint("").read(endless, limit=1000, idle=5.0)
    with pytest.raises(ClientGone):
        await BodyPrint("").read(broken, limit=1000, idle=5.0)


async def test_a_body_that_stands_still_is_given_up() -> None:
    async def nothing() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    silent = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, nothing)

    with pytest.raises(UploadStalled):
        await BodyPrint("").read(silent, limit=10, idle=0.01)
