"""Which frames of the target voice are most like this one? The one door to faiss: build, write, read and mix.

Files are RVC's: `IVF{n},Flat` under L2, with RVC's rule for n, its names and its nprobe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from libs.audio.encode import atomic_file
from libs.common.errors import DatasetEmpty, InvalidInput
from libs.voice.index_file import MAX_INDEX_BYTES, check_index_file, index_refused

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

NEIGHBOURS = 8
NPROBE = 1
ADD_BLOCK = 8192
SEARCH_BLOCK = 1024
"""Rows that are searched at once: 8 neighbours of 768 values each are 25 MB."""

REDUCE_ABOVE = 200_000
REDUCE_TO = 10_000
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

    @property
    def vectors(self) -> Float32:
        """All vectors `[rows, width]`, taken out of the index at each call; searching does not need them."""
        found: Float32 = self._index.reconstruct_n(0, self.rows)
        return found

    def blocks(self, rows: int = ADD_BLOCK) -> Iterator[Float32]:
        """All vectors in the order of their numbers, `[rows, width]` at a time; the last block may be shorter."""
        for start in range(0, self.rows, rows):
            yield self._index.reconstruct_n(start, min(rows, self.rows - start))

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
        parts = [self._mixed(features[i : i + SEARCH_BLOCK], rate) for i in range(0, len(features), SEARCH_BLOCK)]
        return np.concatenate(parts)

    def _mixed(self, features: Float32, rate: float) -> Float32:
        # Only what was found is taken out of the index, so a conversion costs no copy of all vectors.
        distances, ids, near = self._index.search_and_reconstruct(
            np.ascontiguousarray(features, dtype=np.float32), NEIGHBOURS
        )
        found = ids >= 0
        weights = np.where(found, 1.0 / np.maximum(distances.astype(np.float64), SMALLEST_DISTANCE), 0.0) ** 2
        total = weights.sum(axis=1, keepdims=True)
        weights /= np.where(total > 0, total, 1.0)
        near = np.where(found[:, :, None], near, np.float32(0))  # what is missing is filled with NaN
        retrieved = np.einsum("tk,tkd->td", weights, near, dtype=np.float64)
        retrieved = np.where(found.any(axis=1, keepdims=True), retrieved, features)
        return np.asarray(rate * retrieved + (1.0 - rate) * features, dtype=np.float32)


def read_index(path: Path, *, width: int | None = None, max_bytes: int = MAX_INDEX_BYTES) -> RetrievalIndex:
    """Reads an `.index` of RVC, Applio or ours. Its structure is checked against its size before faiss sees it.

    `width`: refuse vectors of another width. Raises NotFound, ModelFileRefused: see `index_file.check_index_file`.
    """
    check_index_file(path, width=width, max_bytes=max_bytes)
    try:
        index = faiss.read_index(str(path))
        return RetrievalIndex(index)
    except RuntimeError as error:
        raise index_refused(path, f"faiss cannot read it ({str(error).splitlines()[0][:120]})") from error


def index_of(built: BuiltIndex) -> RetrievalIndex:
    """A built index ready to be searched, without a file."""
    return RetrievalIndex(built.added)
