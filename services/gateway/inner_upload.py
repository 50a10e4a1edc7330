"""How does a stream reach ingest? Chunk by chunk, while the answer is awaited: a refusal stops the stream at once.

An ordinary HTTP client reads the answer when all is sent. Of 5 GB that ingest refuses after 50 MB it would send all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import h11

from libs.common.errors import PlatformError, Unavailable

_READ = 65_536
_ANSWER_LIMIT = 32 * 1024 * 1024


class UploadStalled(PlatformError):
    """The upload has stopped moving"""

    status = 408
    code = "upload_stalled"
    retryable = True
    suggested_actions = ("Send the files again.",)


@dataclass(frozen=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes

    def json(self) -> Any:
        """The decoded body; raises ValueError."""
        return json.loads(self.body)


async def post(
    url: str,
    headers: dict[str, str],
    body: AsyncIterator[bytes],
    *,
    service: str,
    timeout: float,
    idle: float,
    connect: float = 5.0,
) -> Answer:
    """Sends `body` to `url` as a chunked stream and returns the answer, which may come before the end of the body.

    Whatever `body` raises closes the connection and is raised here. Raises Unavailable, naming `service`, when it
    cannot be reached, breaks off, or has not answered `timeout` seconds after the body's end; UploadStalled when
    neither side moves for `idle` seconds.
    """
    target = urlsplit(url)
    is_tls = target.scheme == "https"
    host, port = target.hostname or "", target.port or (443 if is_tls else 80)
    try:
        opening = asyncio.open_connection(host, port, ssl=ssl.create_default_context() if is_tls else None)
        reader, writer = await asyncio.wait_for(opening, connect)
    except (OSError, TimeoutError) as error:
        raise Unavailable(f"{service} is not reachable", service=service) from error
    machine = h11.Connection(h11.CLIENT)
    reading = asyncio.create_task(_read_answer(machine, reader))
    try:
        request = h11.Request(
            method="POST",
            target=target.path + (f"?{target.query}" if target.query else ""),
            headers=[
                ("Host", target.netloc),
                ("Transfer-Encoding", "chunked"),
                ("Connection", "close"),
                *headers.items(),
            ],
        )
        await _send(machine, writer, request)
        await _send_body(machine, writer, body, reading, idle)
        return await asyncio.wait_for(reading, timeout)
    except TimeoutError as error:
        raise Unavailable(f"{service} did not answer in time", service=service) from error
    except (OSError, h11.ProtocolError) as error:
        raise Unavailable(f"{service} broke off the upload", service=service) from error
    finally:
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError, h11.ProtocolError):
            await reading
        writer.transport.abort()


async def _send_body(
    machine: h11.Connection,
    writer: asyncio.StreamWriter,
    body: AsyncIterator[bytes],
    reading: asyncio.Task[Answer],
    idle: float,
) -> None:
    """Sends until the body ends or an answer is there; an answer is also looked for when the connection breaks."""
    chunks = aiter(body)
    while True:
        arriving = asyncio.ensure_future(anext(chunks, b""))
        chunk = await _unless_answered(arriving, reading, idle)
        if chunk is None:
            return
        sending = asyncio.ensure_future(_send(machine, writer, h11.Data(data=chunk) if chunk else h11.EndOfMessage()))
        try:
            if await _unless_answered(sending, reading, idle) is None:
                return
        except OSError:
            return  # closed by the other side: what it said before is still read
        if not chunk:
            return


async def _unless_answered(work: asyncio.Future[bytes], reading: asyncio.Task[Answer], idle: float) -> bytes | None:
    """The result of `work`, None when the answer came first; raises UploadStalled after `idle` seconds of neither."""
    try:
        await asyncio.wait(set[asyncio.Future[Any]]((work, reading)), return_when=asyncio.FIRST_COMPLETED, timeout=idle)
        if reading.done():
            return None
        if not work.done():
            raise UploadStalled(f"nothing was received for {idle:g} s")
        return work.result()
    finally:
        if not work.done():
            work.cancel()
        if reading.done() or work.cancelled():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await work


async def _send(machine: h11.Connection, writer: asyncio.StreamWriter, event: h11.Event) -> bytes:
    data = machine.send(event)
    if data:
        writer.write(data)
    await writer.drain()
    return data or b""


async def _read_answer(machine: h11.Connection, reader: asyncio.StreamReader) -> Answer:
    status = 0
    body = bytearray()
    while True:
        event = machine.next_event()
        if event is h11.NEED_DATA:
            machine.receive_data(await reader.read(_READ))
        elif isinstance(event, h11.Response):
            status = event.status_code
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > _ANSWER_LIMIT:
                raise OSError("the answer is too long")
        elif isinstance(event, h11.EndOfMessage):
            return Answer(status, bytes(body))
        elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            raise OSError("closed without an answer")
