"""Does an upload pass through the gateway as a stream, and stop where it must?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil

from services.gateway.accounts.tokens import issue_access_token
from tests.integration.gateway.conftest import House, Person
from tests.waiting import PATIENCE, until

MEGABYTE = 1_000_000
HEAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="exp_name"\r\n\r\ntest\r\n'
    b'--frontier\r\nContent-Disposition: form-data; name="files"; filename="a.wav"\r\n\r\nRIFF'
)
TAIL = b"\r\n--frontier--\r\n"
FORM = {"Content-Type": "multipart/form-data; boundary=frontier"}


class Body:
    """A form with one file of `size` bytes that is never held; counts what was taken of it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        yield HEAD
        chunk = bytes(MEGABYTE)
        while self.taken < self.size:
            self.taken += len(chunk)
            yield chunk
        yield TAIL


async def _post(house: House, anna: Person | None, path: str, body: Body | Iterator[bytes]) -> httpx.Response:
    """Sends `body` with a client that reads no answer while it is sending, as most do."""
    token = issue_access_token(house.settings, anna.id, "creator") if anna else ""
    headers = FORM | ({"Authorization": f"Bearer {token}"} if token else {})

    def send() -> httpx.Response:
        with httpx.Client(base_url=house.url, timeout=60, trust_env=False) as client:
            return client.post(f"/api/v1{path}", content=body, headers=headers)

    return await asyncio.to_thread(send)


async def test_headers_that_are_no_ascii_do_not_reach_inner_services(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    await anna.upload("test", "a")
    sample = (await anna.get("/samples")).json()["items"][0]["id"]

    traced = await anna.get(f"/samples/{sample}/audio", headers={b"traceparent": "00-é".encode()})
    ranged = await anna.get(f"/samples/{sample}/audio", headers={b"range": "bytes=0-é".encode()})

    assert (traced.status_code, ranged.status_code) == (200, 200)


async def _raw(house: House, anna: Person | None, headers: str, body: bytes) -> tuple[asyncio.StreamReader, Any]:
    """A request by hand: its head and the beginning of its body are sent."""
    host, port = house.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    token = f"Authorization: Bearer {issue_access_token(house.settings, anna.id, 'creator')}\r\n" if anna else ""
    head = (
        f"POST /api/v1/samples HTTP/1.1\r\nHost: {host}\r\n{token}"
        f"Content-Type: {FORM['Content-Type']}\r\n{headers}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


async def _answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE)
    length = int(next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))[15:])
    return int(head.split()[1]), json.loads(await asyncio.wait_for(reader.readexactly(length), PATIENCE))


async def test_a_declared_size_over_the_limit_is_refused_before_a_byte_is_read(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    size = int(sqlite_house.settings.upload_limit) + 1

    reader, writer = await _raw(sqlite_house, anna, f"Content-Length: {size}\r\nExpect: 100-continue", b"")
    status, problem = await _answer(reader)
    writer.close()

    assert status == 413
    assert problem["code"] == "too_large"
    assert problem["limit_bytes"] == size - 1
    assert problem["detail"] == "the request is larger than 6000 MB"
    assert "FLAC" in problem["suggested_actions"][0], "one long recording cannot be sent in several requests"
    assert sqlite_house.ingest.received_bytes == 0


async def test_a_chunked_body_is_refused_at_the_limit_and_not_at_its_end(sqlite_house: House) -> None:
    sqlite_house.settings.upload_limit = type(sqlite_house.settings.upload_limit)(20 * MEGABYTE)
    anna = await sqlite_house.person()
    body = Body(50_000 * MEGABYTE)  # never held; a fast machine sends 3 GB in the second that the refusal lingers
    memory = psutil.Process().memory_info().rss

    answer = await _post(sqlite_house, anna, "/samples", body)

    assert answer.status_code == 413
    assert answer.json()["limit_bytes"] == 20 * MEGABYTE
    assert body.taken < 25_000 * MEGABYTE
    assert sqlite_house.ingest.received_bytes <= 20 * MEGABYTE
    assert psutil.Process().memory_info().rss - memory < 200 * MEGABYTE
    await until(lambda: sqlite_house.ingest.aborted == 1)
    assert sqlite_house.ingest.staged == {}


async def test_a_refusal_of_ingest_arrives_while_the_client_is_still_sending(sqlite_house: House) -> None:
    sqlite_house.ingest.total_limit = 5 * MEGABYTE
    anna = await sqlite_house.person()

    reader, writer = await _raw(sqlite_house, anna, "Content-Length: 5000000000", HEAD + bytes(6 * MEGABYTE))
    status, problem = await _answer(reader)
    writer.close()

    assert status == 413
    assert problem["detail"] == "more than 5000000 bytes in one request"
    assert sqlite_house.ingest.received_bytes <= 7 * MEGABYTE


async def test_an_ordinary_client_gets_the_refusal_of_ingest_too(sqlite_house: House) -> None:
    sqlite_house.ingest.total_limit = 5 * MEGABYTE
    anna = await sqlite_house.person()
    body = Body(50_000 * MEGABYTE)

    answer = await _post(sqlite_house, anna, "/samples", body)

    assert answer.status_code == 413
    assert body.taken < 25_000 * MEGABYTE


async def test_a_client_that_goes_away_leaves_nothing(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    first = HEAD + b"one\r\n" + HEAD.split(b"test\r\n")[1] + bytes(3 * MEGABYTE)

    _, writer = await _raw(sqlite_house, anna, "Content-Length: 50000000", first)
    await until(lambda: sqlite_house.ingest.received_bytes > 2 * MEGABYTE)
    staged_before = len(sqlite_house.ingest.staged)
    writer.transport.abort()
    await until(lambda: sqlite_house.ingest.aborted == 1)

    assert staged_before == 1
    assert sqlite_house.ingest.staged == {}
    assert (await anna.get("/datasets")).json()["items"] == []


async def test_a_large_upload_is_not_held_in_memory_or_in_a_file(sqlite_house: House, tmp_path: Path) -> None:
    sqlite_house.ingest.file_limit = MEGABYTE
    anna = await sqlite_house.person()
    body = Body(300 * MEGABYTE)
    process = psutil.Process()
    memory, peak = process.memory_info().rss, 0
    sending = asyncio.create_task(_post(sqlite_house, anna, "/samples", body))
    while not sending.done():
        peak = max(peak, process.memory_info().rss)
        await asyncio.sleep(0.01)

    answer = sending.result()

    assert answer.status_code == 413
    assert answer.json()["rejected"][0]["name"] == "a.wav"
    assert sqlite_house.ingest.received_bytes > 300 * MEGABYTE
    assert peak - memory < 100 * MEGABYTE
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size > MEGABYTE]


async def test_a_stream_that_stands_still_is_ended(sqlite_house: House) -> None:
    sqlite_house.settings.upload_idle = type(sqlite_house.settings.upload_idle)(seconds=0.3)
    anna = await sqlite_house.person()

    reader, writer = await _raw(sqlite_house, anna, "Content-Length: 50000000", HEAD)
    status, problem = await _answer(reader)
    writer.close()

    assert status == 408
    assert problem["code"] == "upload_stalled"


async def test_any_other_body_is_bounded(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    declared = json.dumps({"name": "x" * 2 * MEGABYTE})

    first = await anna.post("/datasets", content=declared, headers={"Content-Type": "application/json"})
    second = await _post(sqlite_house, anna, "/datasets", Body(50_000 * MEGABYTE))
    login = await sqlite_house.stranger().post("/api/v1/auth/login", content=declared)

    assert first.status_code == second.status_code == login.status_code == 413
    assert first.json()["code"] == "too_large"


async def test_without_a_token_the_body_is_not_read(sqlite_house: House) -> None:
    declared = f"Content-Length: {3000 * MEGABYTE}"

    reader, writer = await _raw(sqlite_house, None, declared, b"x" * MEGABYTE)
    status, problem = await _answer(reader)
    ended = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()

    assert (status, problem["code"]) == (401, "unauthenticated")
    assert ended == b"", "the connection is closed without waiting for the rest"
    assert sqlite_house.ingest.received_bytes == 0


async def test_ingest_that_dies_in_the_middle_is_a_503(sqlite_house: House) -> None:
    async def die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(MEGABYTE)
        writer.transport.abort()

    server = await asyncio.start_server(die, "127.0.0.1", 0)
    sqlite_house.parts.ingest._url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    anna = await sqlite_house.person()

    answer = await _post(sqlite_house, anna, "/samples", Body(20 * MEGABYTE))
    server.close()

    assert answer.status_code == 503
    assert answer.json()["service"] == "ingest"
