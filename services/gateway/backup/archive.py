"""What is a backup? One tar file that can be written to a pipe, and that says by itself whether it is whole.

backup.json                        format, version, schema, when: first, so that a foreign file is refused at once
database/<table>/000001.jsonl      rows, a JSON object a line, parents before children
files/<root>/…                     data, uploads, models, objects: files, folders, links
checksums.json                     SHA-256 and size of every entry above: last, so a file without it was cut short
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from libs.common.errors import InvalidInput

FORMAT = "voicewright-backup/1"
HEADER, CHECKSUMS = "backup.json", "checksums.json"
DATABASE, FILES = "database", "files"
BLOCK = 1024 * 1024
LONGEST_LIST = 1024 * 1024 * 1024  # bytes of the header or the list of checksums


class ArchiveRefused(InvalidInput):
    """This is no whole backup"""

    code = "backup_refused"
    suggested_actions = ("Take another backup: nothing of this one was used.",)


class Writer:
    """Writes a backup to a stream that need not be seekable. `changed` are files that were written to meanwhile."""

    def __init__(self, stream: IO[bytes], about: dict[str, Any]) -> None:
        self._tar = tarfile.TarFile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=BLOCK)
        self._sums: dict[str, dict[str, Any]] = {}
        self.changed: list[str] = []
        self.add(HEADER, json.dumps({"format": FORMAT, **about}).encode())

    def add(self, name: str, content: bytes) -> None:
        """One entry from memory."""
        info = tarfile.TarInfo(name)
        info.size, info.mtime, info.mode = len(content), time.time(), 0o600
        self._put(info, io.BytesIO(content))

    def add_folder(self, name: str, folder: Path, skip: Callable[[Path], bool]) -> None:
        """Everything below `folder`. Files come before subfolders: a voice's card before the versions that it names."""
        if not folder.is_dir():
            return
        below = []
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            path, inside = Path(entry.path), f"{name}/{entry.name}"
            if skip(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                below.append((inside, path))
            elif entry.is_symlink() or entry.is_file():
                self._add_file(inside, path)
        for inside, path in below:
            self._tar.addfile(self._bare(self._tar.gettarinfo(path, inside)))
            self.add_folder(inside, path, skip)

    def finish(self) -> int:
        """The checksums, and the end; returns how many entries there are."""
        about = {"entries": self._sums, "changed": self.changed}
        self.add(CHECKSUMS, json.dumps(about).encode())
        self._tar.close()
        return len(self._sums) - 1

    def _add_file(self, name: str, path: Path) -> None:
        try:
            if path.is_symlink():
                self._tar.addfile(self._bare(self._tar.gettarinfo(path, name)))
                return
            with path.open("rb") as file:
                info = self._bare(self._tar.gettarinfo(arcname=name, fileobj=file))
                if info.islnk():  # the same file under another name
                    self._tar.addfile(info)
                    return
                self._put(info, file)
        except FileNotFoundError:
            self.changed.append(name)  # removed since the folder was listed

    @staticmethod
    def _bare(info: tarfile.TarInfo) -> tarfile.TarInfo:
        """Who owned it here says nothing elsewhere."""
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        return info

    def _put(self, info: tarfile.TarInfo, file: IO[bytes]) -> None:
        reader = _Measured(file, info.size)
        self._tar.addfile(info, reader)  # type: ignore[arg-type]  # it reads, which is all that is asked of it
        self._sums[info.name] = {"size": info.size, "sha256": reader.sha256}
        if reader.was_short:
            self.changed.append(info.name)


class _Measured:
    """Gives exactly `size` bytes of a file that others may write to, and their checksum."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._sha = hashlib.sha256()
        self.was_short = False

    def read(self, count: int) -> bytes:
        count = min(count, self._left)
        data = self._file.read(count)
        if len(data) < count:
            self.was_short = True
            data += bytes(count - len(data))
        self._left -= count
        self._sha.update(data)
        return data

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()


@dataclass
class Contents:
    """What a backup held, once it was read to its end and found whole."""

    about: dict[str, Any]
    entries: int
    bytes: int
    changed: list[str]
    tables: dict[str, int] = field(default_factory=dict)


def read(stream: IO[bytes], keep: Callable[[PurePosixPath], Path | None]) -> Contents:
    """Reads a backup to its end, and writes each entry where `keep` says (None: nowhere).

    Raises ArchiveRefused for what is no backup, is cut short, was changed, or has names that lead elsewhere.
    """
    try:
        with tarfile.open(fileobj=stream, mode="r|", bufsize=BLOCK) as tar:
            return _read(tar, keep)
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise ArchiveRefused(f"the file is no whole backup: {error}") from error


def _read(tar: tarfile.TarFile, keep: Callable[[PurePosixPath], Path | None]) -> Contents:
    members = iter(tar)
    about = _header(tar, next(members, None))
    found: dict[str, tuple[int, str]] = {}
    tables: dict[str, int] = {}
    end: dict[str, Any] | None = None
    for info in members:
        if info.name == CHECKSUMS:
            end = json.loads(_small(tar, info))
            break
        name = _inside(info.name)
        target = keep(name)
        if info.isreg():
            found[info.name] = _extract(tar, info, target)
            if name.parts[0] == DATABASE:
                tables[name.parts[1]] = tables.get(name.parts[1], 0) + 1
        elif target is not None:
            _make(info, name, target, keep)
    if end is None:
        raise ArchiveRefused("the file ends before its list of checksums: it was cut short")
    listed = {name: (entry["size"], entry["sha256"]) for name, entry in end["entries"].items() if name != HEADER}
    _compare(found, listed)
    return Contents(about, len(found), sum(size for size, _ in found.values()), list(end["changed"]), tables)


def _header(tar: tarfile.TarFile, first: tarfile.TarInfo | None) -> dict[str, Any]:
    if first is None or first.name != HEADER:
        raise ArchiveRefused("the file is no backup of this platform")
    about: dict[str, Any] = json.loads(_small(tar, first))
    if about.get("format") != FORMAT:
        raise ArchiveRefused(f"the backup has the format {about.get('format')!r}; this version reads {FORMAT!r}")
    return about


def _small(tar: tarfile.TarFile, info: tarfile.TarInfo) -> bytes:
    if info.size > LONGEST_LIST:
        raise ArchiveRefused(f"{info.name} has {info.size} bytes, which is more than any backup needs")
    file = tar.extractfile(info)
    if file is None:
        raise ArchiveRefused(f"{info.name} is no file")
    return file.read()


def _compare(found: dict[str, tuple[int, str]], listed: dict[str, tuple[int, str]]) -> None:
    for what, names in (
        ("is missing", listed.keys() - found.keys()),
        ("is not on the list", found.keys() - listed.keys()),
        ("has another checksum", {name for name in found.keys() & listed.keys() if found[name] != listed[name]}),
    ):
        if names:
            raise ArchiveRefused(f"{min(names)} {what}, and {len(names) - 1} more: the backup was damaged or changed")


def _inside(name: str) -> PurePosixPath:
    """An entry's name; raises ArchiveRefused unless it lies below the archive's two folders."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or len(path.parts) < 3 or path.parts[0] not in (DATABASE, FILES):
        raise ArchiveRefused(f"the entry {name!r} leads elsewhere")
    return path


def _extract(tar: tarfile.TarFile, info: tarfile.TarInfo, target: Path | None) -> tuple[int, str]:
    sha, size = hashlib.sha256(), 0
    source = tar.extractfile(info)
    assert source is not None
    if target is not None:
        _refuse_links_above(target)
        target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") if target is not None else open(os.devnull, "wb") as file:
        while block := source.read(BLOCK):
            sha.update(block)
            size += len(block)
            file.write(block)
    if target is not None:
        target.chmod(stat.S_IMODE(info.mode) & 0o755 | 0o600)
        os.utime(target, (info.mtime, info.mtime))
    return size, sha.hexdigest()


def _make(
    info: tarfile.TarInfo, name: PurePosixPath, target: Path, keep: Callable[[PurePosixPath], Path | None]
) -> None:
    """A folder or a link; raises ArchiveRefused for links that leave their root, and for anything else."""
    _refuse_links_above(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    if info.isdir():
        target.mkdir(exist_ok=True)
    elif info.issym():
        volume = next(parent for parent in target.parents if parent.name == STAGING) / FILES
        leads = Path(os.path.normpath(target.parent / info.linkname))
        if os.path.isabs(info.linkname) or not leads.is_relative_to(volume):
            raise ArchiveRefused(f"the link {info.name!r} leads elsewhere")
        target.symlink_to(info.linkname)
    elif info.islnk():
        other = keep(_inside(info.linkname))
        if other is None or not other.is_file():
            raise ArchiveRefused(f"the entry {info.name!r} repeats one that is not there")
        try:
            os.link(other, target, follow_symlinks=False)
        except OSError:  # on another volume here
            shutil.copy2(other, target)
    else:
        raise ArchiveRefused(f"the entry {info.name!r} is neither file nor folder nor link")


def _refuse_links_above(target: Path) -> None:
    """A link that came before must not lead what follows somewhere else."""
    if any(parent.is_symlink() for parent in _up_to_staging(target)):
        raise ArchiveRefused(f"the entry {target.name!r} lies behind a link")


def _up_to_staging(target: Path) -> Iterable[Path]:
    def climb() -> Iterator[Path]:
        for parent in target.parents:
            if parent.name == STAGING:
                return
            yield parent

    return climb()


STAGING = ".restoring"
"""The folder in a root that a backup is read into, before any of it takes its place."""
