"""How does a zip leave the gateway? It is made while it is sent, file by file, and nothing of it is held."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

_CHUNK = 256 * 1024


class _Pipe(io.RawIOBase):
    """Where the zip is written to; what was written is taken away again after each piece."""

    def __init__(self) -> None:
        super().__init__()
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        piece = bytes(data)  # type: ignore[call-overload]  # any buffer, as io has it
        self._held += piece
        return len(piece)

    def take(self) -> bytes:
        """What has come since the last time."""
        held = bytes(self._held)
        self._held.clear()
        return held


def zip_of(files: Iterable[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of a zip of `files` (name in the zip, open file), piece by piece. They are stored, not compressed.

    A file is asked for when its turn comes and closed after it, so a generator may open them one by one. When it cannot
    be opened then, the stream ends with OSError, before the zip's end, so that nobody takes it for a whole one.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, source in files:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            with source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()
