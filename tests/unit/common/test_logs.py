"""Logs are events with fields; the job and the request come along by themselves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from libs.common import logs


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Path]:
    """Where a configured service writes its JSON lines; the root logger is given back afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    logs.configure("trainer", log_format="json", folder=tmp_path)
    yield tmp_path / "trainer.jsonl"
    for handler in root.handlers:
        handler.close()
    root.handlers, _ = before, root.setLevel(level)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_has_its_event_fields_and_service(written: Path) -> None:
    logs.get_logger("training").info("training.step", step=1200, loss=0.41)

    (line,) = lines(written)
    assert line["event"] == "training.step"
    assert (line["step"], line["loss"]) == (1200, 0.41)
    assert (line["service"], line["level"], line["logger"]) == ("trainer", "info", "training")
    assert str(line["timestamp"]).endswith("Z")


def test_what_is_logged_inside_a_job_carries_its_id(written: Path) -> None:
    log = logs.get_logger("training")
    with logs.bind_job("job_1", step="train"):
        log.info("inside")
    log.info("outside")

    inside, outside = lines(written)
    assert (inside["job_id"], inside["step"]) == ("job_1", "train")
    assert "job_id" not in outside


def test_a_log_file_that_cannot_be_written_is_said_once_and_without_a_stack_trace(
    written: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    written.mkdir()

    for number in range(3):
        logging.getLogger("some.library").warning("line %d", number)

    said = capfd.readouterr().err
    assert said.count("lines are missing in the log file") == 1
    assert str(written) in said
    assert "Traceback" not in said


def test_lines_of_libraries_have_the_same_form(written: Path) -> None:
    logging.getLogger("some.library").warning("disk %s is %d %% full", "a", 97)

    (line,) = lines(written)
    assert line["event"] == "disk a is 97 % full"
    assert line["service"] == "trainer"


def test_an_exception_is_told_whole(written: Path) -> None:
    try:
        raise ValueError("seven")
    except ValueError as error:
        logs.get_logger("x").error("failed", exc_info=error)

    (line,) = lines(written)
    assert "ValueError: seven" in str(line["exception"])


def test_a_folder_that_cannot_be_written_does_not_end_the_service(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []

    logs.configure("trainer", folder=blocked / "logs")
    root.handlers, _ = before, root.setLevel(level)

    assert "no log file" in capsys.readouterr().err


def test_a_trace_is_taken_over_or_begun() -> None:
    given = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"

    assert logs.enter_trace(given) == given
    assert logs.current_traceparent() == given
    begun = logs.enter_trace(None)
    assert begun != given
    assert len(begun.split("-")) == 4


@pytest.mark.parametrize("given", ["", "00-é", "x" * 60_000, f"00-{'0' * 32}-{'0' * 16}-01\r\nX: y", f"00-{'A' * 32}-"])
def test_a_trace_that_is_none_is_replaced(given: str) -> None:
    taken = logs.enter_trace(given)

    assert taken != given
    assert len(taken) == 55
    assert taken.isascii()
