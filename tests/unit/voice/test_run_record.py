"""What a run remembers is whole, wherever it is copied to, and is readable by every reader of JSON."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

from libs.common.errors import StorageFull
from libs.voice.run_record import MetricsLog, RunFolder


def no_links(*_: Any) -> NoReturn:
    raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))


def an_earlier_run(folder: Path) -> RunFolder:
    earlier = RunFolder(folder)
    earlier.write_plan({"total_steps": 7})
    earlier.best(5).write_bytes(b"a voice")
    return earlier


def test_an_earlier_run_is_taken_over_where_there_are_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    an_earlier_run(tmp_path / "one")
    monkeypatch.setattr(os, "link", no_links)
    run = RunFolder(tmp_path / "two")

    run.adopt([tmp_path / "one"])

    assert run.best(5).read_bytes() == b"a voice"
    assert run.read_plan() == {"total_steps": 7}


def test_a_full_disk_leaves_no_half_copy_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(source: Any, target: Any) -> NoReturn:
        target.write(source.read(3))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    an_earlier_run(tmp_path / "one")
    monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setattr(shutil, "copyfileobj", half)
    run = RunFolder(tmp_path / "two")

    with pytest.raises(StorageFull):
        run.adopt([tmp_path / "one"])

    assert list(run.root.iterdir()) == []


def test_a_plan_says_that_there_was_a_checkpoint(tmp_path: Path) -> None:
    run = an_earlier_run(tmp_path)
    run.check_nothing_lost()

    run.mark_checkpoint()

    assert run.read_plan() == {"total_steps": 7, "has_checkpoint": True}


def test_a_number_that_json_does_not_know_is_not_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)

    with pytest.raises(ValueError, match="JSON"):
        log.write(step=1, loss=float("nan"))

    log.close()
    assert (tmp_path / "metrics.jsonl").read_text() == ""
