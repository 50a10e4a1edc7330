"""Which frames of the target voice are most like this one? The one door to faiss: build, write, read and mix.

Files are RVC's: `IVF{n},Flat` under L2, with RVC's rule for n, its names and its nprobe.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import faiss
import numpy as np
from numpy.typing import NDArray

from libs.audio.encode import atomic_file
from libs.common.errors import DatasetEmpty, InvalidInput, ModelFileRefused, NotFound

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

NEIGHBOURS = 8
NPROBE = 1
ADD_BLOCK = 8192
REDUCE_ABOVE = 200_000
REDUCE_TO = 10_000
MAX_INDEX_BYTES = 8 * 1024**3
# Distance 0 means "exactly this vector": small enough to win, large enough that its inverse square is a number.
SMALLEST_DISTANCE = 1e-12


def list_count(rows: int) -> int:
    """RVC's number of inverted lists for `rows` vectors, at least 1."""
    return max(1, min(int(16 * np.sqrt(rows)), rows // 39))


def file_name(kind: str, lists: int, experiment: str, version: str, nprobe: int = NPROBE) -> str:
    """RVC's name of an index file; `kind` is `trained` or `added`."""
    return f"{kind}_IVF{lists}_Flat_nprobe_{nprobe}_{experiment}_{version}.index"


@dataclass(frozen=True)
class BuiltIndex:
    """A built index: `trained` holds the lists and no vectors, `added` all of them, `lists` is RVC's n_ivf."""

    trained: bytes
    added: Any
    lists: int
    rows: int
    reduced: bool


def build_index(features: Iterable[Float32], *, seed: int = 0, reduce_above: int = REDUCE_ABOVE) -> BuiltIndex:
    """An index as RVC trains it, from feature arrays `[Th, D]` at 20 ms in sorted name order.

    More than `reduce_above` rows are first reduced to 10,000 k-means centres, as the reference does. Rows are shuffled
    with `seed`, so the same features give the same file. Raises DatasetEmpty for no rows, InvalidInput for mixed widths
    or values that are not finite.
    """
    arrays = [np.asarray(a, dtype=np.float32) for a in features]
    arrays = [a for a in arrays if len(a)]
    if not arrays:
        raise DatasetEmpty("There are no feature frames to build an index from; prepare the dataset first.")
    widths = {a.shape[1] if a.ndim == 2 else -1 for a in arrays}
    if len(widths) != 1 or -1 in widths:
        raise InvalidInput(f"Feature arrays must all be [frames, width] of one width; widths found: {sorted(widths)}.")
    rows = np.concatenate(arrays)
    if not np.isfinite(rows).all():
        raise InvalidInput("Features hold values that are not finite; prepare the dataset again.")
    rng = np.random.default_rng(seed)
    rows = rows[rng.permutation(len(rows))]
    is_reduced = len(rows) > reduce_above
    if is_reduced:
        rows = reduce_rows(rows, min(REDUCE_TO, reduce_above), rng)
    lists = list_count(len(rows))
    index: Any = faiss.index_factory(rows.shape[1], f"IVF{lists},Flat")
    # faiss prints a warning for few points per list; the reference's rule allows 39 and small sets have fewer.
    index.cp.min_points_per_centroid = 1
    index.nprobe = NPROBE
    index.train(rows)
    trained = faiss.serialize_index(index).tobytes()
    for start in range(0, len(rows), ADD_BLOCK):
        index.add(rows[start : start + ADD_BLOCK])
    return BuiltIndex(trained, index, lists, len(rows), is_reduced)


def reduce_rows(rows: Float32, clusters: int, rng: np.random.Generator, passes: int = 3, batch: int = 4096) -> Float32:
    """Mini-batch k-means (Sculley 2010) from random rows: `[N, D]` → centres `[clusters, D]`."""
    centres = rows[rng.choice(len(rows), clusters, replace=False)].copy()
    seen = np.zeros(clusters, dtype=np.int64)
    for _ in range(passes):
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            finder = faiss.IndexFlatL2(rows.shape[1])
            finder.add(centres)
            nearest = finder.search(part, 1)[1][:, 0]
            order = np.argsort(nearest, kind="stable")
            owners, first, count = np.unique(nearest[order], return_index=True, return_counts=True)
            sums = np.add.reduceat(part[order], first, axis=0)
            seen[owners] += count
            # A centre is the mean of all rows it ever had: each batch moves it by its share.
            centres[owners] += (sums - count[:, None] * centres[owners]) / seen[owners][:, None]
    return centres


def write_index(built: BuiltIndex, path: Path) -> None:
    """Writes the full index to `path`: whole under its final name, or not at all."""
    _write_atomically(path, faiss.serialize_index(built.added))


def write_rvc_files(built: BuiltIndex, folder: Path, experiment: str, version: str) -> tuple[Path, Path]:
    """Writes `trained_…` and `added_…` under RVC's names into `folder`; returns both paths."""
    trained = folder / file_name("trained", built.lists, experiment, version)
    added = folder / file_name("added", built.lists, experiment, version)
    _write_atomically(trained, np.frombuffer(built.trained, dtype=np.uint8))
    write_index(built, added)
    return trained, added


def _write_atomically(path: Path, content: NDArray[np.uint8]) -> None:
    with atomic_file(path) as file:
        file.write(content.data)


class RetrievalIndex:
    """The vectors of a voice, ready to be searched. Loaded once and kept; searching is safe from several threads."""

    def __init__(self, index: Any) -> None:
        self._index = index
        self.rows = int(index.ntotal)
        self.width = int(index.d)
        self.vectors: Float32 = index.reconstruct_n(0, self.rows)

    def search(self, features: Float32) -> tuple[Float32, Int64]:
        """The 8 nearest of each row: squared L2 distances and row numbers, both `[T, 8]`; -1 where there are fewer."""
        distances, ids = self._index.search(np.ascontiguousarray(features, dtype=np.float32), NEIGHBOURS)
        return distances, ids

    def mix(self, features: Float32, rate: float) -> Float32:
        """`rate` of the retrieved frames and the rest of the given. `[T, width]` at 20 ms → the same shape.

        Retrieved: mean of the 8 nearest, weighted by the inverse square of the squared distance. An exact hit gives the
        stored vector; a frame without neighbours stays as it is. Raises InvalidInput for another width.
        """
        if features.ndim != 2 or features.shape[1] != self.width:
            raise InvalidInput(
                f"The index holds vectors of {self.width} values and the features have shape {list(features.shape)}; "
                "index and voice must be of the same version.",
                field="index",
            )
        if rate == 0 or not len(features):
            return features
        distances, ids = self.search(features)
        found = ids >= 0
        weights = np.where(found, 1.0 / np.maximum(distances.astype(np.float64), SMALLEST_DISTANCE), 0.0) ** 2
        total = weights.sum(axis=1, keepdims=True)
        weights /= np.where(total > 0, total, 1.0)
        retrieved = np.einsum("tk,tkd->td", weights, self.vectors[np.maximum(ids, 0)], dtype=np.float64)
        retrieved = np.where(found.any(axis=1, keepdims=True), retrieved, features)
        return np.asarray(rate * retrieved + (1.0 - rate) * features, dtype=np.float32)


def read_index(path: Path, *, width: int | None = None, max_bytes: int = MAX_INDEX_BYTES) -> RetrievalIndex:
    """Reads an `.index` of RVC, Applio or ours. Its structure is checked against its size before faiss sees it.

    `width`: refuse vectors of another width. Raises NotFound, ModelFileRefused (not this format, sizes that lie, more
    than `max_bytes`, no vectors in it, as in `trained_…` files).
    """
    if not path.is_file():
        raise NotFound(f"There is no index file `{path.name}`.")
    size = path.stat().st_size
    if size > max_bytes:
        raise _refusal(path, f"it has {size} bytes and {max_bytes} are accepted")
    try:
        with path.open("rb") as file:
            shape = _IndexFile(file, size).check()
    except (_Lies, struct.error) as lie:
        raise _refusal(path, str(lie)) from lie
    if shape[0] == 0:
        raise _refusal(path, "it holds no vectors (a `trained_…` file); use the `added_…` file beside it")
    if width is not None and shape[1] != width:
        raise _refusal(path, f"its vectors have {shape[1]} values and this voice needs {width}")
    try:
        index = faiss.read_index(str(path))
        return RetrievalIndex(index)
    except RuntimeError as error:
        raise _refusal(path, f"faiss cannot read it ({str(error).splitlines()[0][:120]})") from error


def index_of(built: BuiltIndex) -> RetrievalIndex:
    """A built index ready to be searched, without a file."""
    return RetrievalIndex(built.added)


def _refusal(path: Path, reason: str) -> ModelFileRefused:
    return ModelFileRefused(f"The index `{path.name}` is refused: {reason}.", field="index")


class _Lies(Exception):
    """A size in the file does not agree with the file."""


class _IndexFile:
    """Walks over an IVF-Flat index file without loading its vectors, and compares every size with what is left.

    Layout (little-endian): `IwFl`, header, nlist, nprobe, quantizer (`IxF2` or `IxFI`: header, vectors), direct map,
    `ilar`, nlist, code size, `full` or `sprs` with list sizes, then per list the vectors and their int64 ids.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.file = file
        self.size = size

    def check(self) -> tuple[int, int]:
        """`(rows, width)`; raises _Lies."""
        if self._tag() != b"IwFl":
            raise _Lies("it is no IVF-Flat index")
        rows, width = self._header()
        lists = self._number()
        self._number()
        if not 1 <= lists <= 1_000_000:
            raise _Lies(f"it names {lists} lists")
        if self._tag() not in (b"IxF2", b"IxFI", b"IxFl"):
            raise _Lies("its centres are not a flat index")
        centres, centre_width = self._header()
        if (centres, centre_width) != (lists, width) or self._number() != lists * width:
            raise _Lies("its centres do not fit its lists")
        self._skip(lists * width * 4)
        kind = self._read(1)[0]
        if kind not in (0, 1):
            raise _Lies("its direct map is of a kind that RVC does not write")
        self._skip(self._number() * 8)
        self._check_lists(rows, width, lists)
        return rows, width

    def _check_lists(self, rows: int, width: int, lists: int) -> None:
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
            if (numbers[0::2] >= lists).any():
                raise _Lies("a list has a number beyond the last")
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
        if metric != 1:
            raise _Lies("its metric is not L2")
        if not 1 <= width <= 8192 or rows < 0 or rows * width * 4 > self.size:
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
