"""How do files travel to the platform and back? Counted while they are sent, whole under their name once received."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import httpx

SENDING = httpx.Timeout(10.0, read=1800.0, write=300.0)
"""For requests that carry files: the platform may work for half an hour on what it was sent before it answers."""

Progress = Callable[[int], None]
"""Hears of every block of bytes that was sent."""


class CountedFile:
    """A file that says how much of it was read, for progress bars."""

    def __init__(self, file: IO[bytes], told: Progress) -> None:
        self._file = file
        self._told = told

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(size)
        self._told(len(block))
        return block

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def counted(file: IO[bytes], told: Progress | None) -> IO[bytes]:
    """`file`, whose blocks `told` hears of when it is given."""
    return cast(IO[bytes], CountedFile(file, told)) if told else file


def media_type(path: Path) -> str:
    """The media type that a file's name speaks of."""
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def number(text: str | None) -> float | None:
    """A header's number; None for a header that is not there."""
    return float(text) if text else None


def save(response: httpx.Response, target: Path) -> int:
    """The body at `target`, under its name only once it is whole; returns its size in bytes.

    Raises OSError where it cannot be written, and what httpx raises when the answer breaks off; then nothing is left.
    """
    draft = target.with_name(f".{target.name}.{os.getpid()}.part")
    size = 0
    try:
        with draft.open("wb") as file:
            for block in response.iter_bytes():
                size += file.write(block)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
    return size
