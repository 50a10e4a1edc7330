"""What if the reader of a file goes round in circles? Every read and seek is charged to an account, which runs out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from libs.common.errors import PlatformError


class BoundedFile:
    """A read-only file that ends the decoding when FFmpeg reads it over and over again."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("rb")
        self._left = 16 * os.fstat(self._file.fileno()).st_size + (64 << 20)
        self._error: BaseException | None = None

    def read(self, size: int = -1) -> bytes:
        if self._left < 0:
            return b""
        try:
            data = self._file.read(size)
        except OSError as error:
            self._error = error
            raise
        # a call costs something too, even at the end of the file
        self._left -= len(data) + 512
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        self._left -= 4096
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()

    def raise_own_error(self, error: Exception) -> None:
        """Raise again what is not the recording's fault: an error of the disk, or one of ours."""
        if self._error is not None:
            raise self._error
        if isinstance(error, PlatformError):
            raise error
