"""Where do the lines of many replicas go? Each writes files of its own in its service's folder, bounded and rotated.

A replica takes the first name that no other holds: `trainer.jsonl`, `trainer-2.jsonl`, … It holds a lock on the name as
long as it lives, so the next one after it goes on in the same files, and nobody has to sweep up.
"""

from __future__ import annotations

import fcntl
import logging
import logging.handlers
import sys
from pathlib import Path
from typing import IO

LOG_FILE_BYTES = 10_000_000
LOG_FILE_COUNT = 5  # rotated ones; a replica keeps 60 MB at most
MOST_REPLICAS = 1000


class LogFile(logging.handlers.RotatingFileHandler):
    """Says once that it cannot write: a stack trace for each line would bury the lines on a full or read-only disk."""

    _said = ""

    def __init__(self, folder: Path, service: str) -> None:
        """Raises OSError when the folder cannot be used, or every name is taken."""
        folder.mkdir(parents=True, exist_ok=True)
        name, self._held = _free_name(folder, service)
        super().__init__(folder / f"{name}.jsonl", maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILE_COUNT, delay=True)

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif str(error) != self._said:
            self._said = str(error)
            print(f"lines are missing in the log file: {error}", file=sys.stderr)

    def close(self) -> None:
        super().close()
        self._held.close()


def _free_name(folder: Path, service: str) -> tuple[str, IO[str]]:
    """A name, and the open file whose lock keeps it; the kernel frees it with the process."""
    for number in range(1, MOST_REPLICAS + 1):
        name = service if number == 1 else f"{service}-{number}"
        lock = (folder / f".{name}.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
        except OSError:
            lock.close()
            raise
        else:
            return name, lock
    raise OSError(f"{MOST_REPLICAS} processes write logs in {folder}")
