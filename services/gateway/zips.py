"""How does a zip leave the gateway? It is made while it is sent, file by file, and nothing of it is held."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

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


def zip_of(files: Sequence[tuple[str, Path]]) -> Iterator[bytes]:
    """The bytes of a zip of `files` (name in the zip, file), piece by piece. Sound does not compress: it is stored.

    Each file is opened when its turn comes; one that is gone by then ends the stream with OSError, before the zip's
    end, so that nobody takes it for a whole one.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files:
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            with path.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK):
                    target.write(chunk)
                    yield pipe.take()
    yield pipe.take()
