"""Where do uploads wait? In folders that get their name when they are whole, and are swept when they are old.

.staging/.new-upl_…/   being received and examined
.staging/upl_…/        original, audio.wav, report.json, upload.json: whole, and flushed to the disk
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.common.errors import InvalidName, StorageFull, VoiceSampleNotFound
from libs.common.manifests import write_whole
from libs.common.paths import Paths, StagedUpload

_FULL = (28, 122, 27)  # no space, quota, file too large
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True)
class Record:
    """What is known of a staged upload."""

    upload_id: str
    name: str
    sha256: str
    extension: str
    mime_type: str
    size_bytes: int
    duration_seconds: float


def new_upload_id() -> str:
    """Sortable by time, unguessable, safe in paths: `upl_` and 26 characters."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    return "upl_" + "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


@contextlib.contextmanager
def full_disk_is_named(what: str) -> Iterator[None]:
    """A full disk inside the block becomes StorageFull."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"there is no space left to keep {what}: {error.strerror}") from error
        raise


def complete(paths: Paths, record: Record, report: dict[str, Any]) -> None:
    """Gives a received and examined upload its name. Raises StorageFull."""
    unfinished = paths.unfinished_upload(record.upload_id)
    with full_disk_is_named("the upload"):
        write_whole(unfinished.report, json.dumps(report, indent=1).encode())
        write_whole(unfinished.record, json.dumps(asdict(record), indent=1).encode())
        flush_folder(unfinished.folder)
        unfinished.folder.rename(paths.staged(record.upload_id))
        flush_folder(paths.staging)


def find(paths: Paths, upload_id: str) -> tuple[Record, StagedUpload]:
    """A whole upload; raises VoiceSampleNotFound for any other id. Its files may be in a dataset already."""
    try:
        upload = paths.staged_upload(upload_id)
        return Record(**json.loads(upload.record.read_bytes())), upload
    except (InvalidName, OSError, ValueError, TypeError) as error:
        raise VoiceSampleNotFound(
            f"there is no upload {upload_id[:80]!r}; uploads that nobody claims are removed after a while",
            upload_id=upload_id[:80],
        ) from error


def remove(paths: Paths, upload_id: str) -> None:
    """Removes an upload, whole or not; one that is not there is fine."""
    with contextlib.suppress(InvalidName):
        for folder in (paths.unfinished_upload(upload_id).folder, paths.staged(upload_id)):
            shutil.rmtree(folder, ignore_errors=True)


def sweep(paths: Paths, older_than_seconds: float) -> list[str]:
    """Removes whatever in the staging area has not changed for so long; returns the names."""
    before = time.time() - older_than_seconds
    removed = []
    with contextlib.suppress(FileNotFoundError):
        for entry in sorted(paths.staging.iterdir()):
            with contextlib.suppress(FileNotFoundError):
                if _last_change(entry) < before:
                    if entry.is_dir() and not entry.is_symlink():
                        shutil.rmtree(entry, ignore_errors=True)
                    else:
                        entry.unlink()
                    removed.append(entry.name)
    return removed


def flush_folder(folder: Path) -> None:
    """Makes renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _last_change(entry: Path) -> float:
    newest = entry.lstat().st_mtime
    if entry.is_dir() and not entry.is_symlink():
        newest = max([newest, *(inside.lstat().st_mtime for inside in entry.iterdir())])
    return newest
