"""Replicas of a service write logs side by side, and no secret gets into one."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from libs.common import log_files, logs
from libs.common.log_files import LogFile
from libs.common.secrecy import HIDDEN, without_secrets

PROJECT = Path(__file__).parents[3]


def say(file: LogFile, text: str) -> None:
    file.emit(logging.LogRecord("x", logging.INFO, "x", 1, text, None, None))


def test_two_replicas_write_two_files_and_the_next_goes_on_where_one_has_ended(tmp_path: Path) -> None:
    first, second = LogFile(tmp_path, "trainer"), LogFile(tmp_path, "trainer")
    say(first, "of the first")
    say(second, "of the second")
    first.close()
    third = LogFile(tmp_path, "trainer")
    say(third, "of the third")
    second.close()
    third.close()

    assert (tmp_path / "trainer.jsonl").read_text() == "of the first\nof the third\n"
    assert (tmp_path / "trainer-2.jsonl").read_text() == "of the second\n"


def test_a_replica_that_was_killed_leaves_its_name_to_the_next(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from libs.common.log_files import LogFile; "
        "kept = LogFile(pathlib.Path(sys.argv[1]), 'x'); print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, cwd=PROJECT)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    beside = LogFile(tmp_path, "x")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    after = LogFile(tmp_path, "x")

    assert Path(beside.baseFilename).name == "x-2.jsonl"
    assert Path(after.baseFilename).name == "x.jsonl"
    beside.close()
    after.close()


def test_a_replica_keeps_no_more_than_its_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "LOG_FILE_BYTES", 1000)
    file = LogFile(tmp_path, "ingest")
    for number in range(200):
        say(file, f"{number:0100}")
    file.close()

    kept = sorted(tmp_path.glob("ingest.jsonl*"))
    assert len(kept) == 1 + log_files.LOG_FILE_COUNT
    assert sum(path.stat().st_size for path in kept) <= 1000 * len(kept)
    assert f"{199:0100}" in (tmp_path / "ingest.jsonl").read_text()


def test_more_processes_than_names_are_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "MOST_REPLICAS", 1)
    one = LogFile(tmp_path, "x")

    with pytest.raises(OSError, match="1 processes"):
        LogFile(tmp_path, "x")
    one.close()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("password", "correct horse", HIDDEN),
        ("SERVICE_TOKEN", "abc", HIDDEN),
        ("headers", {"Authorization": "Bearer abc.def", "accept": "x"}, {"Authorization": HIDDEN, "accept": "x"}),
        ("error", "401 for Bearer eyJhbGciOi.x.y", f"401 for Bearer {HIDDEN}"),
        ("error", "no account of vwk_3xT4aB9c-_x, or 'vwr_7'", f"no account of vwk_{HIDDEN}, or 'vwr_{HIDDEN}'"),
        ("url", "nats://gateway:hunter2@nats:4222", f"nats://gateway:{HIDDEN}@nats:4222"),
        ("query", "GET /live?token=abc123&x=1", f"GET /live?token={HIDDEN}&x=1"),
        ("exception", ["postgresql+asyncpg://u:p4ss@db/x"], [f"postgresql+asyncpg://u:{HIDDEN}@db/x"]),
        ("token", 7, 7),
        ("url", "running on http://127.0.0.1:8000/docs", "running on http://127.0.0.1:8000/docs"),
        ("url", "nats://nats:4222, then a@b", "nats://nats:4222, then a@b"),
        ("step", "train", "train"),
        ("detail", "the token of the lease is 3", "the token of the lease is 3"),
    ],
)
def test_a_secret_is_hidden_by_its_name_or_its_look_and_nothing_else_is(name: str, value: object, said: object) -> None:
    assert without_secrets(name, value) == said


def test_no_secret_reaches_the_file_whoever_logs_it(tmp_path: Path) -> None:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    logs.configure("gateway", log_format="json", folder=tmp_path)
    logs.get_logger("x").info("login", password="s3cret-1", url="nats://u:s3cret-2@nats")
    logging.getLogger("some.library").warning("sent %s", "Authorization: Bearer s3cret-3")
    try:
        raise ValueError("postgresql://u:s3cret-4@db")
    except ValueError as error:
        logs.get_logger("x").error("failed", exc_info=error)
    for handler in root.handlers:
        handler.close()
    root.handlers, _ = before, root.setLevel(level)

    written = (tmp_path / "gateway.jsonl").read_text()
    assert len([json.loads(line) for line in written.splitlines()]) == 3
    assert "s3cret" not in written
