"""How is a file written so that its final name never holds half of it?"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import torch

from libs.audio.encode import atomic_file
from libs.common.errors import StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
TEMPORARY_PREFIX = ".tmp-"


@contextlib.contextmanager
def storage_full_told(what: str) -> Iterator[None]:
    """OSError for want of space (disk full, quota, file size limit) becomes StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"{what} could not be written: {os.strerror(error.errno or 0)}") from error
        raise


def write_atomically(path: Path, write: Callable[[IO[bytes]], None]) -> str:
    """Let `write` fill a temporary file, sync it, rename it to `path`; returns the SHA-256 of the bytes as hex.

    Raises StorageFull when there is no space; neither then nor after any other error is a partial file left.
    """
    with atomic_file(path) as stream:
        watched = _Watched(stream)
        write(cast("IO[bytes]", watched))
        watched.finish()
    return watched.digest.hexdigest()


def write_text_atomically(path: Path, text: str) -> str:
    """`text` as UTF-8, as `write_atomically`."""
    data = text.encode()
    return write_atomically(path, lambda stream: void(stream.write(data)))


def void(_: Any) -> None:
    """Takes a value and returns nothing, for callbacks whose result does not matter."""


def save_tensors(value: Any, stream: IO[bytes]) -> None:
    """`torch.save` through a Python file: plain containers, tensors, numbers, text."""
    torch.save(value, stream)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Watched:
    """A file that hashes what passes and keeps the first write error for later.

    torch's zip writer is C++ and cannot unwind through a Python exception: an error is kept, and raised by `finish`.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._error: OSError | None = None
        self.digest = hashlib.sha256()

    def write(self, data: Any) -> int:
        length = memoryview(data).nbytes
        if self._error is None:
            try:
                self._stream.write(data)
                self.digest.update(data)
            except OSError as error:
                self._error = error
        return length

    def flush(self) -> None:
        if self._error is None:
            try:
                self._stream.flush()
            except OSError as error:
                self._error = error

    def finish(self) -> None:
        self.flush()
        if self._error is not None:
            raise self._error
