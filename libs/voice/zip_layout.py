"""Does a zip say one thing to every reader? Checked before a second program opens it.

Python and torch read zips with different code. A file made for it could show each of them other content, so torch's
files must have exactly the plain layout that torch writes: entries side by side, the list of entries
behind them, its end at the end of the file, nothing between. Source: APPNOTE.TXT 6.3.10, sections 4.3 to 4.5.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from libs.common.errors import ModelFileRefused

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_LOCAL = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 0x1
_UTF8 = 0x800


MAX_ENTRIES = 100_000


@dataclass(frozen=True)
class Directory:
    """Where a zip's list of entries begins, and how many it has."""

    start: int
    entries: int


def torch_directory(file: IO[bytes], size: int, name: str) -> Directory:
    """The list of entries; it must fill the file up to the end records, and these the file's last bytes.

    Looked at before Python reads the list, which costs memory by its length. Raises ModelFileRefused.
    """
    crooked = ModelFileRefused(f"{name} is not a readable torch file: a zip whose end torch would not have written")
    end_at = size - _END.size
    mark, _, _, _, total, length, start, comment = _END.unpack(_at(file, end_at, _END.size, crooked))
    if mark != b"PK\x05\x06" or comment:
        raise crooked
    ends = end_at
    locator_at = end_at - _LOCATOR.size
    if locator_at >= _END64.size:
        mark, _, end64_at, _ = _LOCATOR.unpack(_at(file, locator_at, _LOCATOR.size, crooked))
        if mark == b"PK\x06\x07":
            ends = locator_at - _END64.size
            mark, _, _, _, _, _, _, total, length, start = _END64.unpack(_at(file, ends, _END64.size, crooked))
            if mark != b"PK\x06\x06" or end64_at != ends:
                raise crooked
    if start + length != ends:
        raise crooked
    if total > MAX_ENTRIES:
        raise ModelFileRefused(f"{name} has {total} entries; that is no model")
    return Directory(start, total)


def require_torch_layout(file: IO[bytes], directory: Directory, entries: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Raise ModelFileRefused unless the zip in `file` has one meaning: see above. `entries` as Python read them."""
    if len(entries) != directory.entries:
        raise ModelFileRefused(f"{name} lists {directory.entries} entries and has {len(entries)}")
    names = [entry.filename for entry in entries]
    if len({each.casefold() for each in names}) != len(names):
        raise ModelFileRefused(f"{name} holds two entries of one name")
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise ModelFileRefused(f"{name} is encrypted inside; torch never writes that")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise ModelFileRefused(f"{name} is compressed inside; torch never writes that")
    reached = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < reached:
            raise ModelFileRefused(f"{name}: the entry {entry.filename[:60]!r} overlaps another")
        file.seek(entry.header_offset)
        header = file.read(_LOCAL.size)
        if len(header) != _LOCAL.size or header[:4] != b"PK\x03\x04":
            raise ModelFileRefused(f"{name}: the entry {entry.filename[:60]!r} does not begin where it should")
        *_, name_length, extra_length = _LOCAL.unpack(header)
        written_in = "utf-8" if entry.flag_bits & _UTF8 else "cp437"
        if file.read(name_length) != entry.orig_filename.encode(written_in):
            raise ModelFileRefused(f"{name}: the entry {entry.filename[:60]!r} has two names")
        reached = entry.header_offset + _LOCAL.size + name_length + extra_length + entry.file_size
        if reached > directory.start:
            raise ModelFileRefused(f"{name} declares more bytes than it has")


def require_apart(entries: Sequence[zipfile.ZipInfo], name: str) -> None:
    """Raise ModelFileRefused when entries of a zip share bytes, as in bombs that unpack the same data many times."""
    reached = 0
    for entry in sorted(entries, key=lambda each: each.header_offset):
        if entry.header_offset < reached:
            raise ModelFileRefused(f"{name}: the entry {entry.filename[:60]!r} overlaps another")
        reached = entry.header_offset + _LOCAL.size + entry.compress_size


def _at(file: IO[bytes], offset: int, length: int, crooked: ModelFileRefused) -> bytes:
    if offset < 0:
        raise crooked
    file.seek(offset)
    return file.read(length)
