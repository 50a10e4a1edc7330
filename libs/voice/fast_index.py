"""How is an index built that finds nearly what an exact search finds, quickly? RVC's file form, other numbers.

RVC looks into one list of many small ones and, above 200,000 rows, keeps only 10,000 centres. Here every row is kept,
the lists are trained on a sample, and how many of them are looked into is measured against an exact search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import faiss
import numpy as np

from libs.common.errors import DatasetEmpty, InvalidInput
from libs.voice.retrieval import ADD_BLOCK, NEIGHBOURS, BuiltIndex, Float32

IndexMode = Literal["rvc", "fast"]

ROWS_PER_LIST = 39
MOST_LISTS = 4096
SAMPLE_PER_LIST = 64
PASSES = 10
QUERIES = 512
RECALL_AIM = 0.97
"""Measured on rows of the index itself; a little above the 0.95 that is promised, because other queries lie apart."""


@dataclass(frozen=True)
class FastIndex:
    """A built index and what was measured: the share of the 8 nearest that it finds, looking into `nprobe` lists."""

    built: BuiltIndex
    nprobe: int
    recall: float

    def card(self) -> dict[str, object]:
        """What a voice card records."""
        return {
            "mode": "fast",
            "lists": self.built.lists,
            "nprobe": self.nprobe,
            "recall_at_8": round(self.recall, 4),
        }


def build_fast_index(read: Callable[[], Iterable[Float32]], *, seed: int = 0) -> FastIndex:
    """An index of all rows of the feature arrays `[Th, D]` that `read` gives; it is called twice.

    Memory: the rows once, and a sample of at most 262,144 of them. Lists: 4 √rows, at most 4096 and at least 39 rows
    each. nprobe: doubled until 97% of the 8 nearest of 512 rows are found. The same features give the same index.
    Raises DatasetEmpty for no rows, InvalidInput for mixed widths or values that are not finite.
    """
    rng = np.random.default_rng(seed)
    rows, width = _measured(read())
    lists = max(1, min(int(4 * np.sqrt(rows)), rows // ROWS_PER_LIST, MOST_LISTS))
    sample = _rows_at(read(), np.sort(rng.choice(rows, min(rows, lists * SAMPLE_PER_LIST), replace=False)), width)
    index: Any = faiss.index_factory(width, f"IVF{lists},Flat")
    index.cp.min_points_per_centroid = 1
    index.cp.niter = PASSES
    index.cp.seed = seed + 1
    index.train(sample)
    trained = faiss.serialize_index(index).tobytes()
    for array in read():
        for start in range(0, len(array), ADD_BLOCK):
            index.add(np.ascontiguousarray(array[start : start + ADD_BLOCK], dtype=np.float32))
    queries = sample[rng.choice(len(sample), min(QUERIES, len(sample)), replace=False)]
    recall = _choose_nprobe(index, queries, exact_neighbours(read(), queries))
    return FastIndex(BuiltIndex(trained, index, lists, rows, reduced=False), int(index.nprobe), recall)


def exact_neighbours(arrays: Iterable[Float32], queries: Float32, neighbours: int = NEIGHBOURS) -> Float32:
    """Squared L2 distances of the exact nearest rows, ascending, `[Q, neighbours]`; one array in memory at a time."""
    best = np.full((len(queries), neighbours), np.inf, dtype=np.float32)
    for array in arrays:
        for start in range(0, len(array), ADD_BLOCK):
            part = np.ascontiguousarray(array[start : start + ADD_BLOCK], dtype=np.float32)
            near, _ = faiss.knn(queries, part, min(neighbours, len(part)))
            best = np.sort(np.concatenate([best, near], axis=1), axis=1)[:, :neighbours]
    return best


def recall_of(index: Any, queries: Float32, exact: Float32) -> float:
    """Share of the nearest of `queries` `[n, width]`, `exact` `[n, k]` squared distances, that `index` finds.

    Compared by distance, so that equal rows count as equal.
    """
    found, _ = index.search(queries, exact.shape[1])
    allowed = exact[:, -1:] * np.float32(1 + 1e-4) + np.float32(1e-4)
    return float(np.mean(found <= allowed))


def _choose_nprobe(index: Any, queries: Float32, exact: Float32) -> float:
    index.nprobe = 1
    while True:
        recall = recall_of(index, queries, exact)
        if recall >= RECALL_AIM or index.nprobe >= index.nlist:
            return recall
        index.nprobe = min(2 * index.nprobe, index.nlist)


def _measured(arrays: Iterable[Float32]) -> tuple[int, int]:
    rows, widths = 0, set()
    for array in arrays:
        if not len(array):
            continue
        widths.add(array.shape[1] if array.ndim == 2 else -1)
        if not np.isfinite(array).all():
            raise InvalidInput("Features hold values that are not finite; prepare the dataset again.")
        rows += len(array)
    if not rows:
        raise DatasetEmpty("There are no feature frames to build an index from; prepare the dataset first.")
    if len(widths) != 1 or -1 in widths:
        raise InvalidInput(f"Feature arrays must all be [frames, width] of one width; widths found: {sorted(widths)}.")
    return rows, widths.pop()


def _rows_at(arrays: Iterable[Float32], wanted: np.ndarray[Any, np.dtype[np.int64]], width: int) -> Float32:
    """The rows with the numbers `wanted`, ascending, of all arrays one behind the other."""
    parts, before = [np.zeros((0, width), np.float32)], 0
    for array in arrays:
        inside = wanted[(wanted >= before) & (wanted < before + len(array))] - before
        parts.append(np.asarray(array[inside], dtype=np.float32))
        before += len(array)
    return np.concatenate(parts)
