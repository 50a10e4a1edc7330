"""How does a file get its final name only when it is whole, right and on the disk? And what is there already?"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from scripts.asset_manifest import AssetError, AssetFile, DownloadFailed, NoRoom, WrongContents

State = Literal["there", "missing", "other"]
Progress = Callable[[int], None]
"""Is told of bytes that were read or received since it was told last."""
BLOCK = 1 << 20
SPARE = 64 << 20
"""Bytes that stay free on the disk, beside what is fetched."""


def sha256_of(path: Path, progress: Progress = lambda _: None) -> str:
    """The checksum of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
            progress(len(block))
    return digest.hexdigest()


def state(file: AssetFile, root: Path, *, by_checksum: bool = False) -> State:
    """Whether `file` is in its place: by its size, or with `by_checksum` by all of it.

    `other`: something else has that name, e.g. a person's own file.
    """
    place = file.under(root)
    if not place.is_file():
        return "missing"
    if file.size is not None and place.stat().st_size != file.size:
        return "other"
    return "other" if by_checksum and sha256_of(place) != file.sha256 else "there"


def check_room(folder: Path, wanted: int) -> None:
    """Raises NoRoom when `folder`'s disk has no room for `wanted` bytes more and some to spare."""
    free = shutil.disk_usage(folder).free
    if free < wanted + SPARE:
        raise NoRoom(
            f"{(wanted + SPARE) / 1e6:.0f} MB are needed in {folder}, {free / 1e6:.0f} MB are free: make room, or "
            "choose another folder with --into"
        )


@contextmanager
def only_one(root: Path) -> Iterator[None]:
    """Keeps a second run off the same folder. Raises AssetError while there is another."""
    make_folder(root)
    with (root / ".fetch-assets.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AssetError(f"another scripts/fetch-assets is at work in {root}: wait for its end") from error
        yield


def make_folder(folder: Path) -> None:
    """Makes `folder`, which everybody may look into: the containers read it as a user of their own."""
    missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    for parent in reversed(missing):
        parent.mkdir(exist_ok=True)
        parent.chmod(0o755)


class Draft:
    """What has been received of one file, beside its final place, and from which edition it is."""

    def __init__(self, file: AssetFile, root: Path) -> None:
        self.file = file
        self.final = file.under(root)
        self.part = self.final.with_name(f".{self.final.name}.part")
        self._note = self.final.with_name(f".{self.final.name}.part.json")
        make_folder(self.final.parent)

    def size(self) -> int:
        """Bytes that are here."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def edition(self) -> str:
        """The server's mark (ETag or date) of what is here, '' when it gave none or it was for another file."""
        try:
            note: dict[str, Any] = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return ""
        return str(note.get("edition", "")) if note.get("sha256") == self.file.sha256 else ""

    def begin(self, edition: str) -> None:
        """Forgets what is here; what comes now is of `edition`."""
        self.discard()
        self._note.write_text(json.dumps({"sha256": self.file.sha256, "edition": edition}), encoding="utf-8")

    def write(self, blocks: Iterator[bytes], progress: Progress) -> None:
        """Appends blocks. Raises WrongContents as soon as they are more than the file has, and NoRoom."""
        limit, received = self.file.size, self.size()
        with self.part.open("ab") as stream:
            for block in blocks:
                received += len(block)
                if limit is not None and received > limit:
                    raise WrongContents(f"{self.file.path}: more came than its {limit} bytes")
                try:
                    stream.write(block)
                    stream.flush()
                except OSError as error:
                    if error.errno in (errno.ENOSPC, errno.EDQUOT):
                        raise NoRoom(f"{self.final.parent}: {error.strerror}; what came so far is kept") from error
                    raise DownloadFailed(f"{self.part} cannot be written: {error.strerror}") from error
                progress(len(block))

    def keep(self) -> None:
        """Gives the file its final name when it is the published one; else nothing is left. Raises WrongContents."""
        found = sha256_of(self.part)
        if found != self.file.sha256:
            size = self.size()
            self.discard()
            raise WrongContents(
                f"{self.file.path} is not the published file: SHA-256 {found} of {size} bytes, expected "
                f"{self.file.sha256}. It was refused and removed"
            )
        with self.part.open("rb") as stream:
            os.fsync(stream.fileno())
        self.part.chmod(0o644)
        self.part.replace(self.final)
        self._note.unlink(missing_ok=True)
        folder = os.open(self.final.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def discard(self) -> None:
        """Removes what is here."""
        self.part.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
