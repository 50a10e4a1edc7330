"""Does a change of the source restart a service of the development stack, and does it end when it is asked to?"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.deploy.files import PROJECT

PROGRAM = """
import pathlib, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit({status}))
with open({log!r}, "a") as log:
    log.write({word!r} + "\\n")
while {endless}:
    time.sleep(0.05)
"""


class Source:
    """A folder with the reloader and one program that writes a word when it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self._version = 0
        shutil.copy(PROJECT / "deploy" / "dev" / "reload.py", folder / "reload.py")

    def write(self, word: str, *, endless: bool = True, status: int = 0) -> None:
        path = self.folder / "program.py"
        path.write_text(PROGRAM.format(word=word, log=str(self.log), endless=endless, status=status))
        self._version += 1
        # Two changes within one tick of the file system's clock are two changes still.
        os.utime(path, (1_700_000_000 + self._version,) * 2)

    def words(self) -> list[str]:
        return self.log.read_text().split() if self.log.exists() else []


def wait_for(what: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path)


@pytest.fixture
def start(source: Source) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin() -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "reload.py", "program.py"]
        started.append(
            subprocess.Popen(command, cwd=source.folder, stdout=subprocess.PIPE, text=True, start_new_session=True)
        )
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


def test_a_change_ends_the_old_program_and_starts_the_new_one(source, start):
    source.write("first")
    process = start()
    wait_for(lambda: source.words() == ["first"])

    source.write("second")

    wait_for(lambda: source.words() == ["first", "second"])
    assert process.poll() is None


def test_a_program_that_ended_is_started_again_when_its_source_is_mended(source, start):
    source.write("broken", endless=False)
    process = start()
    assert process.stdout is not None
    assert "ended with status 0; waiting for a change" in process.stdout.readline()

    source.write("mended")

    wait_for(lambda: source.words() == ["broken", "mended"])


def test_sigterm_reaches_the_program_and_its_status_is_passed_on(source, start):
    source.write("only", status=7)
    process = start()
    wait_for(lambda: source.words() == ["only"])

    process.send_signal(signal.SIGTERM)

    assert process.wait(60) == 7


def test_without_a_program_it_says_how_it_is_used():
    answer = subprocess.run(
        [sys.executable, PROJECT / "deploy" / "dev" / "reload.py"], capture_output=True, text=True, timeout=60
    )

    assert answer.returncode == 1
    assert "reload.py -m MODULE" in answer.stderr
