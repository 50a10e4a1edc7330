"""Forms are read while they arrive: any chunking gives the same parts, limits hold at once, nothing is buffered."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput, PlatformError, TooLarge, TooMany
from libs.common.multipart import Field, FileBegin, FileData, FileEnd, Limits, read_form

BOUNDARY = "----form-7f3a"
CONTENT_TYPE = f'multipart/form-data; boundary="{BOUNDARY}"'


def part(name: str, content: bytes, filename: str | None = None, extra: str = "") -> bytes:
    quoted = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{quoted}\r\n{extra}\r\n'
    return head.encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(
    body: bytes, *, size: int = 65_536, limits: Limits | None = None, kind: str = CONTENT_TYPE
) -> list[object]:
    """All events, with the data of each file joined."""
    found: list[object] = []
    data = b""
    async for event in read_form(kind, pieces(body, size), limits):
        if isinstance(event, FileData):
            data += event.data
        elif isinstance(event, FileEnd):
            found.append(data)
            data = b""
        else:
            found.append(event)
    return found


async def test_fields_and_files_come_in_their_order() -> None:
    body = (
        part("exp_name", "müller".encode())
        + part("files", b"\x00\r\n--\xff", "a.mp3", "Content-Type: audio/mpeg\r\n")
        + part("note", b"")
        + END
    )

    events = await read(body)

    assert events == [
        Field("exp_name", "müller"),
        FileBegin("files", "a.mp3", "audio/mpeg"),
        b"\x00\r\n--\xff",
        Field("note", ""),
    ]


@given(
    contents=st.lists(
        st.binary(max_size=80) | st.sampled_from([b"\r\n", b"\r\n--", f"\r\n--{BOUNDARY[:-1]}".encode(), b"-" * 9]),
        max_size=4,
    ),
    size=st.integers(1, 90),
)
@settings(max_examples=150, deadline=None)
async def test_any_chunking_gives_the_same_parts(contents: list[bytes], size: int) -> None:
    body = b"".join(part("files", content, f"{n}.wav") for n, content in enumerate(contents)) + END

    events = await read(body, size=size)

    assert events[1::2] == contents
    assert events[::2] == [FileBegin("files", f"{n}.wav", "") for n in range(len(contents))]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a b.wav", "a b.wav"),
        ("Grüße 🎤.mp3", "Grüße 🎤.mp3"),
        ("../../etc/passwd", "../../etc/passwd"),
        ('say %22hi%22\\".wav', 'say "hi"".wav'),
        ("", ""),
        ("x" * 300, "x" * 300),
    ],
)
async def test_file_names_are_given_as_the_client_wrote_them(written: str, meant: str) -> None:
    events = await read(part("files", b"1", written) + END)

    assert events[0] == FileBegin("files", meant, "")


async def test_a_name_in_the_extended_notation_is_a_file_name_too() -> None:
    head = f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=files; filename*=utf-8''Gr%C3%BC%C3%9Fe.mp3\r\n\r\n"

    events = await read(head.encode() + b"1\r\n" + END)

    assert events == [FileBegin("files", "Grüße.mp3", ""), b"1"]


async def test_a_name_that_is_no_utf8_does_not_end_the_request() -> None:
    head = f"--{BOUNDARY}\r\n".encode() + b'Content-Disposition: form-data; name="f"; filename="\xff\xfe.wav"\r\n\r\n'

    events = await read(head + b"1\r\n" + END)

    assert events == [FileBegin("f", "\ufffd\ufffd.wav", ""), b"1"]


@pytest.mark.parametrize(
    "kind",
    ["", "application/json", "multipart/form-data", "multipart/form-data; boundary=", "multipart/mixed; boundary=x"],
)
async def test_another_content_type_is_refused_with_what_to_do(kind: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        await read(END, kind=kind)

    assert "curl -F" in caught.value.actions[0]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"this is no form",
        b"--another\r\n\r\n",
        part("files", b"half of it", "a.mp3"),
        part("files", b"1", "a.mp3") + END[:-6],
        f"--{BOUNDARY}\r\n\r\nno headers\r\n".encode() + END,
        f"--{BOUNDARY}\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n".encode() + END,
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; filename=a\r\n\r\n1\r\n".encode() + END,
        f"--{BOUNDARY}\r\nBad\x00Header: 1\r\n\r\n1\r\n".encode() + END,
    ],
)
async def test_a_malformed_or_cut_form_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        await read(body)

    assert caught.value.problem()["status"] == 422
    assert caught.value.field == "body"


async def test_a_file_that_is_cut_has_no_end() -> None:
    seen: list[object] = []

    async def take() -> None:
        async for event in read_form(CONTENT_TYPE, pieces(part("files", b"1" * 1000, "a.mp3")[:-200], 100)):
            seen.append(type(event))

    with pytest.raises(InvalidInput):
        await take()

    assert FileBegin in seen
    assert FileEnd not in seen


@pytest.mark.parametrize(
    ("body", "limits", "error"),
    [
        (part("f", b"1", "a") * 3 + END, Limits(files=2), TooMany),
        (part("f", b"1") * 3 + END, Limits(fields=2), TooMany),
        (part("f", b"1" * 11) + END, Limits(field_bytes=10), TooLarge),
        (part("f", b"1" * 11, "a") + END, Limits(file_bytes=10), TooLarge),
        (part("f", b"1" * 500, "a") + END, Limits(total_bytes=300), TooLarge),
        (part("f", b"1", "a", "X-Long: " + "y" * 600 + "\r\n") + END, Limits(header_bytes=500), InvalidInput),
        (part("f", b"1", "a", "X: y\r\n" * 9) + END, Limits(headers=8), InvalidInput),
    ],
)
async def test_each_limit_is_named_when_it_is_passed(body: bytes, limits: Limits, error: type[PlatformError]) -> None:
    for size in (7, 65_536):
        with pytest.raises(error):
            await read(body, size=size, limits=limits)


async def test_what_keeps_to_the_limits_passes() -> None:
    body = part("f", b"1" * 10, "a") * 2 + part("g", b"1" * 10) + END

    events = await read(body, limits=Limits(total_bytes=len(body), files=2, file_bytes=10, fields=1, field_bytes=10))

    assert len(events) == 5


async def test_a_limit_ends_the_reading_of_the_body() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        yield part("files", b"", "a.wav")[:-2]
        while True:
            taken += 1
            yield b"x" * 65_536

    async def take() -> None:
        async for _ in read_form(CONTENT_TYPE, endless(), Limits(file_bytes=1_000_000)):
            pass

    with pytest.raises(TooLarge):
        await take()

    assert taken == 16


async def test_memory_does_not_grow_with_a_file() -> None:
    async def large() -> AsyncIterator[bytes]:
        yield part("files", b"", "a.wav")[:-2]
        for _ in range(1000):
            yield b"\r\n--" * 16_384
        yield b"\r\n" + END

    received = 0
    tracemalloc.start()
    async for event in read_form(CONTENT_TYPE, large()):
        received += len(event.data) if isinstance(event, FileData) else 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert received == 65_536_000
    assert peak < 2_000_000
