"""How does a voice leave the installation? As a zip that is made while it is sent."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from libs.common.errors import NotFound
from libs.common.paths import VoiceVersion

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


def open_version(version: VoiceVersion) -> list[tuple[str, BinaryIO]]:
    """Weights, index and card, opened: a deletion that comes later does not cut the export short.

    Raises NotFound when the weights or the card are not there; a voice may be without an index.
    """
    with ExitStack() as stack:
        opened: list[tuple[str, BinaryIO]] = []
        for path in (version.weights, version.index, version.card):
            try:
                opened.append((path.name, stack.enter_context(path.open("rb"))))
            except OSError as error:
                if path != version.index:
                    raise NotFound(f"the voice's file {path.name} is not there") from error
        stack.pop_all()
        return opened


def zipped(folder: str, files: list[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of a zip with `files` in `folder`, piece by piece; closes the files. Weights do not compress."""
    pipe = _Pipe()
    with ExitStack() as stack:
        for _, source in files:
            stack.callback(source.close)
        with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
            for name, source in files:
                entry = zipfile.ZipInfo(f"{folder}/{Path(name).name}", date_time=(1980, 1, 1, 0, 0, 0))
                entry.external_attr = 0o644 << 16
                with archive.open(entry, "w", force_zip64=True) as target:
                    while chunk := source.read(_CHUNK):
                        target.write(chunk)
                        yield pipe.take()
    yield pipe.take()
