"""What may go wrong while files come in? Floods, clients that leave, killed processes, a full disk: nothing is left."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.conftest import TOKEN
from tests.factories_audio import make_speech, make_tone
from tests.integration.ingest.conftest import Service, StartIngest
from tests.waiting import PATIENCE, wait_until

FIVE_GB = 5_000_000_000
MB = 1_000_000


class Wire:
    """A client at the socket: it sends what it likes, for as long as nobody answers."""

    def __init__(self, service: Service, headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", service.port))
        self.sent = 0
        request = f"POST /uploads HTTP/1.1\r\nHost: ingest\r\nAuthorization: Bearer {TOKEN}\r\n"
        self.send((request + f"Content-Type: multipart/form-data; boundary=b\r\n{headers}\r\n\r\n").encode())

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)
        self.sent += len(data)

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def has_answer(self) -> bool:
        return bool(select.select([self.socket], [], [], 0)[0])

    def answer(self) -> tuple[int, dict[str, str], dict[str, Any]]:
        """Status, headers and JSON of the answer, read until the server closes."""
        self.socket.settimeout(PATIENCE)
        raw = b""
        with self.socket, contextlib.suppress(ConnectionResetError):
            while data := self.socket.recv(65_536):
                raw += data
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        return int(lines[0].split()[1]), headers, json.loads(body)


def part(filename: str) -> bytes:
    return f'--b\r\nContent-Disposition: form-data; name="files"; filename="{filename}"\r\n\r\n'.encode()


def size_of(folder: Path) -> int:
    total = 0
    for where, _, names in os.walk(folder):  # it does not mind folders that vanish
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(where, name)).st_size
    return total


@contextlib.contextmanager
def watched(service: Service) -> Iterator[dict[str, int]]:
    """The most memory that the service takes, above what it had, and the most that it stages, in bytes."""
    assert service.process is not None
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    most = {"memory": 0, "disk": 0}
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.02):
            most["memory"] = max(most["memory"], process.memory_info().rss - before)
            most["disk"] = max(most["disk"], size_of(service.paths.staging))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield most
    finally:
        stop.set()
        thread.join()


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# -- floods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_declared", [True, False], ids=["declared", "chunked"])
def test_one_file_of_5_gb_is_refused_at_the_limit(ingest: Service, is_declared: bool) -> None:
    wire = Wire(ingest, f"Content-Length: {FIVE_GB}" if is_declared else "Transfer-Encoding: chunked")
    send = wire.send if is_declared else wire.chunk
    block = bytes(MB)

    with watched(ingest) as most:
        send(part("huge.wav"))
        while wire.sent < FIVE_GB and not wire.has_answer():
            send(block)
        status, headers, problem = wire.answer()

    assert status == 413
    assert headers["connection"] == "close"
    assert headers["content-type"] == "application/problem+json"
    assert problem["code"] == "too_large"
    assert problem["limit_bytes"] == 50 * 1024**2
    assert "huge.wav" in problem["detail"]
    assert wire.sent < 150 * MB
    assert most["disk"] <= 50 * 1024**2
    assert most["memory"] < 40 * MB
    assert ingest.staged == []
    assert httpx.get(f"{ingest.url}/livez", timeout=PATIENCE).status_code == 200


def test_a_request_that_announces_too_much_is_refused_before_it_is_sent(start_ingest: StartIngest) -> None:
    ingest = start_ingest(UPLOAD_TOTAL_LIMIT="100MB")
    wire = Wire(ingest, f"Content-Length: {FIVE_GB}")

    status, headers, problem = wire.answer()

    assert (status, headers["connection"], problem["limit_bytes"]) == (413, "close", 100 * MB)


def test_an_ordinary_client_hears_the_refusal_too(start_ingest: StartIngest) -> None:
    ingest = start_ingest(UPLOAD_FILE_LIMIT="1MB", UPLOAD_SKIP_LIMIT="1MB")

    def endless() -> Iterator[bytes]:
        yield part("huge.wav")
        while True:
            yield bytes(MB)

    with ingest.client() as client:
        answer = client.post("/uploads", content=endless(), headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert answer.status_code == 413
    assert answer.json()["limit_bytes"] == MB


def test_many_files_are_refused_where_together_they_pass_the_limit(start_ingest: StartIngest) -> None:
    ingest = start_ingest(UPLOAD_TOTAL_LIMIT="30MB")
    wire = Wire(ingest, "Transfer-Encoding: chunked")
    block = bytes(MB)

    with watched(ingest) as most:
        while wire.sent < FIVE_GB and not wire.has_answer():
            wire.chunk(part("a.wav") + block)
            wire.chunk(block + b"\r\n")
        status, _, problem = wire.answer()

    assert (status, problem["code"], problem["limit_bytes"]) == (413, "too_large", 30 * MB)
    assert wire.sent < 80 * MB
    assert most["disk"] <= 31 * MB
    assert ingest.staged == []


def test_an_upload_that_stands_still_ends(start_ingest: StartIngest) -> None:
    ingest = start_ingest(UPLOAD_IDLE=0.5)
    wire = Wire(ingest, f"Content-Length: {FIVE_GB}")
    wire.send(part("a.wav") + bytes(2 * MB))

    status, _, problem = wire.answer()

    assert status == 422
    assert "0.5 s" in problem["detail"]
    assert ingest.staged == []


# -- clients that leave -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["declared", "chunked"])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(ingest: Service, tmp_path: Path, how: str) -> None:
    whole = make_speech(5.0, "en-us", tmp_path / "a.wav").read_bytes()
    wire = Wire(ingest, "Content-Length: 90000000" if how == "declared" else "Transfer-Encoding: chunked")
    send = wire.send if how == "declared" else wire.chunk
    send(part("whole.wav") + whole + b"\r\n" + part("half.wav") + bytes(5 * MB))
    wait_until(lambda: size_of(ingest.paths.staging))

    wire.socket.close()

    wait_until(lambda: not ingest.staged)
    assert httpx.get(f"{ingest.url}/livez", timeout=PATIENCE).status_code == 200
    assert "upload_id" in ingest.stage(tmp_path / "a.wav")


# -- processes that die -----------------------------------------------------------------------------------------------


class Reaper:
    """Kills every examiner process that it sees, as the kernel does when memory runs out."""

    def __init__(self, service: Service, most: int) -> None:
        assert service.process is not None
        self.killed = 0
        self._most = most
        self._service = psutil.Process(service.process.pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._reap)

    def _reap(self) -> None:
        while self.killed < self._most and not self._stop.wait(0.01):
            for child in self._service.children():
                with contextlib.suppress(psutil.NoSuchProcess):
                    if "services.ingest.examiner" in child.cmdline():
                        child.kill()
                        self.killed += 1
                        with contextlib.suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
                            child.wait(PATIENCE)

    def __enter__(self) -> Reaper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_a_killed_examiner_is_replaced_and_costs_nothing(ingest: Service, tmp_path: Path) -> None:
    recording = make_speech(20.0, "en-us", tmp_path / "a.mp3")

    with Reaper(ingest, most=1) as reaper:
        file = ingest.stage(recording)

    assert reaper.killed == 1
    assert file["duration_seconds"] == pytest.approx(20.0, abs=0.1)


def test_examiners_that_died_while_idle_cost_no_file(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(EXAMINERS=3)
    assert ingest.process is not None
    service = psutil.Process(ingest.process.pid)
    speech = [make_speech(10.0 + n, "en-us", tmp_path / f"{n}.mp3").read_bytes() for n in range(3)]
    ingest.upload(*((f"{n}.mp3", content) for n, content in enumerate(speech)))
    idle = [child for child in service.children() if "services.ingest.examiner" in child.cmdline()]
    for child in idle:
        child.kill()
    wait_until(lambda: all(is_gone(child) for child in idle))

    file = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))

    assert len(idle) >= 2
    assert file["duration_seconds"] == pytest.approx(1.0, abs=0.01)


def test_a_file_whose_examiners_die_gets_a_problem_and_the_service_goes_on(ingest: Service, tmp_path: Path) -> None:
    recording = make_speech(20.0, "en-us", tmp_path / "a.mp3")

    with Reaper(ingest, most=1000):
        answer = ingest.upload(("a.mp3", recording.read_bytes()))

    (file,) = answer.json()["files"]
    assert answer.status_code == 200
    assert (file["problem"]["code"], file["problem"]["retryable"]) == ("unavailable", True)
    assert ingest.staged == []
    assert "upload_id" in ingest.stage(recording)


def test_an_examination_that_takes_too_long_is_ended(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(EXAMINE_TIMEOUT=0.01)

    answer = ingest.upload(("a.mp3", make_speech(20.0, "en-us", tmp_path / "a.mp3").read_bytes()))

    (file,) = answer.json()["files"]
    assert file["problem"]["code"] == "broken_audio"
    assert "0.01 s" in file["problem"]["detail"]
    assert ingest.staged == []


def test_idle_examiners_end_and_a_killed_ingest_leaves_none(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(EXAMINER_IDLE=3.0)
    assert ingest.process is not None
    service = psutil.Process(ingest.process.pid)
    ingest.stage(make_tone(1.0, tmp_path / "a.wav"))
    wait_until(lambda: not service.children())
    ingest.stage(make_tone(1.0, tmp_path / "a.wav"))
    children = service.children()
    assert children

    ingest.kill()

    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


def test_kill_9_in_the_middle_leaves_only_what_the_sweep_removes(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(STAGING_TTL=3600)
    kept = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]
    wire = Wire(ingest, "Transfer-Encoding: chunked")
    wire.chunk(part("half.wav") + bytes(5 * MB))
    wait_until(lambda: len(ingest.staged) == 2)

    ingest.kill()
    wire.socket.close()

    rubbish = [name for name in ingest.staged if name != kept]
    assert [name[:5] for name in rubbish] == [".new-"], "what is not whole has no upload's name"
    assert sorted(p.name for p in ingest.paths.uploads_dir.iterdir()) == [".staging"]

    ingest.start()
    time.sleep(0.5)
    assert len(ingest.staged) == 2, "what is young may be another replica's work"
    ingest.kill()

    swept = start_ingest(STAGING_TTL=0.1)
    wait_until(lambda: not swept.staged)


def test_old_uploads_are_swept_while_the_service_runs(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest(STAGING_TTL=4.0, SWEEP_EVERY=0.2)

    upload = ingest.stage(make_tone(1.0, tmp_path / "a.wav"))["upload_id"]

    assert ingest.staged == [upload]
    wait_until(lambda: not ingest.staged)


def test_sigterm_ends_the_service_and_its_processes(start_ingest: StartIngest, tmp_path: Path) -> None:
    ingest = start_ingest()
    ingest.stage(make_tone(1.0, tmp_path / "a.wav"))
    assert ingest.process is not None
    children = psutil.Process(ingest.process.pid).children()

    status = ingest.kill(signal.SIGTERM)

    assert status in (0, -signal.SIGTERM)
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


# -- a full disk ------------------------------------------------------------------------------------------------------


def test_a_full_disk_is_named_leaves_nothing_and_the_service_goes_on(start_ingest: StartIngest, tmp_path: Path) -> None:
    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (MB, MB))

    ingest = start_ingest(preexec=small_files_only)
    small = make_tone(2.0, tmp_path / "small.wav")
    original_too_large = make_tone(30.0, tmp_path / "large.wav")
    wav_too_large = make_speech(60.0, "en-us", tmp_path / "long.mp3")

    for path in (original_too_large, wav_too_large):
        answer = ingest.upload(("small.wav", small.read_bytes()), (path.name, path.read_bytes()))

        assert answer.status_code == 507, answer.text
        assert answer.json()["code"] == "storage_full"
        assert answer.json()["retryable"] is True
        assert ingest.staged == []
    assert "upload_id" in ingest.stage(small)
