"""Does the search of the logs find the newest lines that fit, whoever said them, and never read more than it may?"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from services.gateway.logbook import search as searching
from services.gateway.logbook.search import Wanted, search

START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def moment(minute: float) -> str:
    return (START + timedelta(minutes=minute)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def line(minute: float, event: str, **more: Any) -> str:
    return json.dumps({"service": "x", "timestamp": moment(minute), "level": "info", "event": event, **more})


def write(folder: Path, name: str, *lines: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{one}\n" for one in lines))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two replicas of a trainer, one with a rotated file, and a gateway."""
    write(tmp_path, "trainer/trainer.jsonl.1", line(0, "t0"), line(1, "t1", job_id="job_1"))
    write(tmp_path, "trainer/trainer.jsonl", line(4, "t4"), line(6, "t6", job_id="job_1", level="error"))
    write(tmp_path, "trainer/trainer-2.jsonl", line(3, "u3", job_id="job_12"), line(5, "u5", level="warning"))
    write(tmp_path, "gateway/gateway.jsonl", line(2, "g2", request_id="req_1"), line(7, "Größe ä"))
    return tmp_path


def events(folder: Path, **wanted: Any) -> list[str]:
    return [found["event"] for found in search(folder, Wanted(**wanted)).lines]


def test_lines_of_all_replicas_come_newest_first(folder: Path) -> None:
    found = search(folder, Wanted())

    assert [one["event"] for one in found.lines] == ["Größe ä", "t6", "u5", "t4", "u3", "g2", "t1", "t0"]
    assert found.is_complete
    assert found.searched_until is None
    assert found.searched_bytes == sum(path.stat().st_size for path in folder.rglob("*.jsonl*"))


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"service": "gateway"}, ["Größe ä", "g2"]),
        ({"service": "inference"}, []),
        ({"level": "warning"}, ["t6", "u5"]),
        ({"job_id": "job_1"}, ["t6", "t1"]),
        ({"request_id": "req_1"}, ["g2"]),
        ({"text": "GRÖSSE Ä".replace("SS", "ß")}, ["Größe ä"]),
        ({"since": START + timedelta(minutes=5)}, ["Größe ä", "t6", "u5"]),
        ({"until": START + timedelta(minutes=2)}, ["t1", "t0"]),
        ({"job_id": "job_1", "level": "error"}, ["t6"]),
    ],
)
def test_only_what_fits_is_found(folder: Path, wanted: dict[str, Any], expected: list[str]) -> None:
    assert events(folder, **wanted) == expected


def test_pages_follow_each_other_without_gap_or_doubling(folder: Path) -> None:
    seen, until = [], None
    while True:
        found = search(folder, Wanted(limit=3, until=until))
        seen += [one["event"] for one in found.lines]
        if found.is_complete:
            break
        until = datetime.fromisoformat(found.searched_until or "")

    assert seen == ["Größe ä", "t6", "u5", "t4", "u3", "g2", "t1", "t0"]


def test_a_search_that_has_read_its_bytes_says_how_far_it_came_and_leaves_out_nothing_newer(tmp_path: Path) -> None:
    for replica in ("a", "b"):
        lines = [line(n + (replica == "b") * 0.5, f"{replica}{n}", pad="x" * 900) for n in range(2000)]
        write(tmp_path, f"trainer/{replica}.jsonl", *lines)

    found = search(tmp_path, Wanted(limit=10_000), most_bytes=1_500_000)

    assert not found.is_complete
    assert found.searched_bytes <= 1_500_000
    told = [one["event"] for one in found.lines]
    assert told == [f"{replica}{n}" for n in range(1999, 0, -1) for replica in ("b", "a")][: len(told)]
    assert found.searched_until == found.lines[-1]["timestamp"]
    assert len(told) > 1000


def test_a_search_for_one_job_reads_back_only_to_its_beginning(tmp_path: Path) -> None:
    write(tmp_path, "trainer/trainer.jsonl", *(line(n, f"t{n}", pad="x" * 900) for n in range(3000)))

    found = search(tmp_path, Wanted(since=START + timedelta(minutes=2990), limit=1000))

    assert len(found.lines) == 10
    assert found.searched_bytes <= 2 * searching._BLOCK


def test_cut_foreign_and_endless_lines_are_passed_over(tmp_path: Path) -> None:
    broken = ['{"event": "cut", "times', "no json", "[1]", '{"timestamp": "soon", "event": "x"}', "", '{"event": 1}']
    path = write(tmp_path, "trainer/trainer.jsonl", line(1, "before"), *broken, line(2, "after"))
    with path.open("a") as file:
        file.write("y" * (searching.LONGEST_LINE + 3 * searching._BLOCK))
        file.write("\n" + line(3, "last"))

    assert events(tmp_path) == ["last", "after", "before"]


def test_nothing_outside_the_folder_is_read(tmp_path: Path) -> None:
    outside = write(tmp_path, "outside/secret.jsonl", line(1, "secret"))
    logs = tmp_path / "logs"
    (logs / "trainer").mkdir(parents=True)
    (logs / "trainer" / "trainer.jsonl").symlink_to(outside)
    (logs / "gateway").symlink_to(outside.parent)
    os.mkfifo(logs / "trainer" / "pipe.jsonl")
    write(logs, "trainer/notes.txt", line(1, "notes"))

    assert events(logs) == []
    assert events(tmp_path / "not-there") == []
