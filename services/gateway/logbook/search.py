"""Which lines of all services fit? Read backwards from the newest, merged by time, and never more than a bound.

    .logs/trainer/trainer.jsonl ◀─ .jsonl.1 ◀─ …      each chain from its end
    .logs/trainer/trainer-2.jsonl ◀─ …                merged: the newest of all chains first
    .logs/gateway/gateway.jsonl ◀─ …

The search ends at `limit` lines, at `since`, or when it has read its bytes; what was not looked at is said. Blocking.
"""

from __future__ import annotations

import heapq
import json
import logging
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SEARCH_BYTES = 64 * 1024 * 1024
LONGEST_LINE = 1024 * 1024
_BLOCK = 256 * 1024
_STAMP = "%Y-%m-%dT%H:%M:%S.%fZ"
_MOMENT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z"
_DATED = re.compile(rf'"timestamp": ?"({_MOMENT})"'.encode())
_FILE = re.compile(r"(?P<chain>[\w-]+\.jsonl)(?:\.(?P<number>\d{1,2}))?")


@dataclass(frozen=True)
class Wanted:
    """What a line must be. `level` is the least severe that is told; `text` stands anywhere in the line."""

    service: str | None = None
    level: str | None = None
    job_id: str | None = None
    request_id: str | None = None
    text: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    limit: int = 100


@dataclass
class Found:
    """Lines, newest first. Unless it `is_complete` there may be more before `searched_until`."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    is_complete: bool = True
    searched_until: str | None = None
    searched_bytes: int = 0


class _Spent(Exception):
    """The search has read as much as it may."""


class _Reading:
    """Counts what is read."""

    def __init__(self, most: int) -> None:
        self.left = most
        self.done = 0

    def take(self, count: int) -> None:
        if count > self.left:
            raise _Spent
        self.left -= count
        self.done += count


def search(folder: Path, wanted: Wanted, *, most_bytes: int = SEARCH_BYTES) -> Found:
    """The newest `limit` lines below `folder` that fit."""
    found, reading = Found(), _Reading(most_bytes)
    since = wanted.since.astimezone(UTC).strftime(_STAMP) if wanted.since else ""
    until = wanted.until.astimezone(UTC).strftime(_STAMP) if wanted.until else "~"
    chains = [_stamped(files, wanted, since, reading) for files in _chains(folder, wanted)]
    try:
        for stamp, line in heapq.merge(*chains, key=lambda pair: pair[0], reverse=True):
            found.searched_until = stamp
            if stamp >= until or line is None or not _fits(line, wanted):
                continue
            found.lines.append(line)
            if len(found.lines) >= wanted.limit:
                found.is_complete = False
                break
    except _Spent:
        found.is_complete = False
    found.searched_bytes = reading.done
    if found.is_complete:
        found.searched_until = None
    return found


def _chains(folder: Path, wanted: Wanted) -> list[list[Path]]:
    """The files of each replica, newest first. Links are not followed: workers write here, people may not."""
    chains: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    services = [folder / wanted.service] if wanted.service else sorted(folder.glob("*"))
    for place in services:
        for path in place.glob("*.jsonl*") if place.is_dir() and not place.is_symlink() else ():
            if (named := _FILE.fullmatch(path.name)) is not None and not path.is_symlink():
                number = int(named["number"] or 0)
                chains.setdefault((place.name, named["chain"]), []).append((number, path))
    return [[path for _, path in sorted(files)] for _, files in sorted(chains.items())]


def _stamped(
    files: list[Path], wanted: Wanted, since: str, reading: _Reading
) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The chain's lines as (moment, line), newest first; a line that cannot fit is not parsed, only dated."""
    needles = [json.dumps(text)[1:-1].encode() for text in (wanted.job_id, wanted.request_id) if text]
    seen: set[int] = set()
    for path in files:
        for raw in _backwards(path, seen, reading):
            line = _parsed(raw) if all(needle in raw for needle in needles) else _dated(raw)
            if line is None:
                continue
            stamp = str(line.get("timestamp", ""))
            if stamp < since:
                return
            yield stamp, line if "event" in line else None


def _dated(raw: bytes) -> dict[str, Any] | None:
    """Only the moment of a line, which is enough to know when to stop."""
    found = _DATED.search(raw)
    return {"timestamp": found[1].decode()} if found else None


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except ValueError:
        return None  # cut by a kill, or not ours
    if not isinstance(line, dict) or "event" not in line:
        return None
    return line if re.fullmatch(_MOMENT, str(line.get("timestamp"))) else None


def _fits(line: dict[str, Any], wanted: Wanted) -> bool:
    if wanted.level and _severity(line.get("level")) < _severity(wanted.level):
        return False
    if any(
        asked is not None and line.get(name) != asked
        for name, asked in (("job_id", wanted.job_id), ("request_id", wanted.request_id))
    ):
        return False
    return wanted.text is None or wanted.text.lower() in json.dumps(line, ensure_ascii=False).lower()


def _severity(level: Any) -> int:
    return logging.getLevelNamesMapping().get(str(level).upper(), 0)


def _backwards(path: Path, seen: set[int], reading: _Reading) -> Iterator[bytes]:
    """The whole lines of a file, last first; nothing of one that is gone, was read under another name, or is none."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait
    except OSError:
        return
    with open(handle, "rb") as file:
        about = os.fstat(handle)
        if about.st_ino in seen or not stat.S_ISREG(about.st_mode):
            return
        seen.add(about.st_ino)  # a rotation in between gives it another name
        place, tail = about.st_size, b""
        while place > 0:
            size = min(_BLOCK, place)
            reading.take(size)
            place -= size
            file.seek(place)
            first, *whole = (file.read(size) + tail).split(b"\n")
            yield from (line for line in reversed(whole) if line)
            tail = first if len(first) <= LONGEST_LINE else b""
        if tail:
            yield tail
