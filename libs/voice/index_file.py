"""Does an `.index` file hold what it claims? Its structure is walked and measured before faiss sees it.

RVC and Applio make their index with faiss's factory text `IVF{n},Flat` under L2 and write `IwFl`; plain `Flat` (`IxF2`)
is read too. Source of the layouts: files that faiss 1.7 to 1.15 writes, little-endian.

    IwFl   header, nlist, nprobe, centres (a flat index), direct map, `ilar`: list sizes, then vectors and int64 ids
    IxF2   header, number of values, values
    header width int32, rows int64, two int64 that mean nothing, trained 1 byte, metric int32
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from libs.common.errors import ModelFileRefused, NotFound

MAX_INDEX_BYTES = 8 * 1024**3
MAX_LISTS = 1_000_000
MAX_WIDTH = 8192
_L2 = 1
_FLAT_TAGS = (b"IxF2", b"IxFl")
_CENTRE_TAGS = (*_FLAT_TAGS, b"IxFI")
_OTHER_KINDS = {b"IxFI": "inner products", b"IxMp": "an id map", b"IxM2": "an id map", b"IxPT": "a pretransform"}


@dataclass(frozen=True)
class IndexShape:
    """What an index file holds: `rows` vectors of `width` float32 values in `lists` lists, `nprobe` of them searched.

    A flat index has `lists` 0 and `nprobe` 0: every vector is looked at.
    """

    form: Literal["ivf", "flat"]
    rows: int
    width: int
    lists: int
    nprobe: int


def check_index_file(path: Path, *, width: int | None = None, max_bytes: int = MAX_INDEX_BYTES) -> IndexShape:
    """Measure the index at `path` without loading its vectors; what it answers is safe to give to faiss.

    `width`: refuse vectors of another width (256 for v1, 768 for v2). Raises NotFound, and ModelFileRefused for
    another format, sizes that do not agree with the file, more than `max_bytes`, or no vectors (`trained_…` files).
    """
    if not path.is_file():
        raise NotFound(f"There is no index file `{path.name}`.")
    size = path.stat().st_size
    if size > max_bytes:
        raise index_refused(path, f"it has {size} bytes and {max_bytes} are accepted")
    try:
        with path.open("rb") as file:
            shape = _IndexFile(file, size).check()
    except (_Lies, struct.error) as lie:
        raise index_refused(path, str(lie)) from lie
    if shape.rows == 0:
        raise index_refused(path, "it holds no vectors (a `trained_…` file); use the `added_…` file beside it")
    if width is not None and shape.width != width:
        raise index_refused(path, f"its vectors have {shape.width} values and this voice needs {width}")
    return shape


def index_refused(path: Path, reason: str) -> ModelFileRefused:
    """The error that names the index and why it is not taken."""
    return ModelFileRefused(f"The index `{path.name}` is refused: {reason}.", field="index")


class _Lies(Exception):
    """A size in the file does not agree with the file."""


class _IndexFile:
    """Walks over an index file and compares every size with what is left of it."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def check(self) -> IndexShape:
        """The shape; raises _Lies."""
        tag = self._tag()
        if tag in _FLAT_TAGS:
            shape = self._flat()
        elif tag == b"IwFl":
            shape = self._ivf()
        elif tag in _OTHER_KINDS:
            raise _Lies(f"it is made of {_OTHER_KINDS[tag]}, which RVC and Applio do not write")
        else:
            raise _Lies("it is neither an IVF-Flat nor a flat index of faiss")
        if self.file.tell() != self.size:
            raise _Lies(f"{self.size - self.file.tell()} bytes follow its content")
        return shape

    def _flat(self) -> IndexShape:
        rows, width = self._header()
        if self._number() != rows * width:
            raise _Lies("its values do not fit its header")
        self._skip(rows * width * 4)
        return IndexShape("flat", rows, width, 0, 0)

    def _ivf(self) -> IndexShape:
        rows, width = self._header()
        lists, nprobe = self._number(), self._number()
        if not 1 <= lists <= MAX_LISTS:
            raise _Lies(f"it names {lists} lists")
        if not 1 <= nprobe <= MAX_LISTS:
            raise _Lies(f"it would search {nprobe} lists")
        if self._tag() not in _CENTRE_TAGS:
            raise _Lies("its centres are not a flat index")
        centres, centre_width = self._header()
        if (centres, centre_width) != (lists, width) or self._number() != lists * width:
            raise _Lies("its centres do not fit its lists")
        self._skip(lists * width * 4)
        # a direct map says where each vector lies and faiss believes it; neither RVC nor Applio makes one
        if self._read(1)[0] != 0 or self._number() != 0:
            raise _Lies("it holds a direct map, which RVC and Applio do not write")
        self._lists(rows, width, lists)
        return IndexShape("ivf", rows, width, lists, nprobe)

    def _lists(self, rows: int, width: int, lists: int) -> None:
        tag = self._tag()
        if tag == b"il00" and rows == 0:
            return
        if tag != b"ilar":
            raise _Lies("its lists are kept in a form that RVC does not write")
        if self._number() != lists or self._number() != width * 4:
            raise _Lies("its lists do not fit its header")
        form, count = self._tag(), self._number()
        if count * 8 > self.size:
            raise _Lies(f"it names {count} list sizes")
        numbers = np.frombuffer(self._read(count * 8), dtype="<u8")
        if form == b"full" and count == lists:
            sizes = numbers
        elif form == b"sprs" and count % 2 == 0:
            sizes = numbers[1::2]
            if (numbers[0::2] >= lists).any() or len(np.unique(numbers[0::2])) != len(sizes):
                raise _Lies("a list has a number beyond the last, or two have one number")
        else:
            raise _Lies("its table of list sizes is damaged")
        if (sizes > rows).any() or int(sizes.sum()) != rows:
            raise _Lies("its list sizes do not add up to its vectors")
        held = np.zeros(rows, dtype=bool)
        for size in sizes.tolist():
            self._skip(size * width * 4)
            ids = np.frombuffer(self._read(size * 8), dtype="<i8")
            if len(ids) and (ids.min() < 0 or ids.max() >= rows):
                raise _Lies("a vector has a number beyond the last")
            held[ids] = True
        if not held.all():
            raise _Lies("its vectors are not numbered from 0 without gap")

    def _header(self) -> tuple[int, int]:
        width, rows, _, _, _, metric = struct.unpack("<iqqqBi", self._read(33))
        if metric != _L2:
            raise _Lies("its metric is not L2")
        if not 1 <= width <= MAX_WIDTH or rows < 0 or rows * width * 4 > self.size:
            raise _Lies(f"it claims {rows} vectors of {width} values, which its {self.size} bytes cannot hold")
        return rows, width

    def _tag(self) -> bytes:
        return self._read(4)

    def _number(self) -> int:
        value: int = struct.unpack("<Q", self._read(8))[0]
        return value

    def _read(self, count: int) -> bytes:
        self._fits(count)
        return self.file.read(count)

    def _skip(self, count: int) -> None:
        self._fits(count)
        self.file.seek(count, os.SEEK_CUR)

    def _fits(self, count: int) -> None:
        if count > self.size - self.file.tell():
            raise _Lies("it ends before its content does")
