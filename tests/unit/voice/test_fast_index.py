"""Does the fast index keep every row, find what an exact search finds, and stay a file that RVC can read?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libs.common.errors import DatasetEmpty, InvalidInput
from libs.voice import retrieval
from libs.voice.fast_index import build_fast_index, exact_neighbours, recall_of


def arrays(rows: int = 6000, width: int = 24) -> list[np.ndarray]:
    """Frames that wander, as speech does: neighbours in time are neighbours in space."""
    rng = np.random.default_rng(5)
    whole = np.cumsum(rng.standard_normal((rows, width)), axis=0) * 0.05 + rng.standard_normal((rows, width)) * 0.2
    return np.array_split(whole.astype(np.float32), 7)


def test_the_eight_nearest_are_found_and_the_measurement_is_true() -> None:
    parts = arrays()
    rng = np.random.default_rng(1)
    queries = np.concatenate(parts)[rng.choice(6000, 300)] + 0.05 * rng.standard_normal((300, 24)).astype(np.float32)

    fast = build_fast_index(lambda: iter(parts))

    exact = exact_neighbours(iter(parts), queries)
    whole = np.concatenate(parts)
    direct = np.sort(((whole[None] - queries[:5, None]) ** 2).sum(-1), axis=1)[:, :8]
    np.testing.assert_allclose(exact[:5], direct, rtol=1e-3, atol=1e-3)
    assert recall_of(fast.built.added, queries, exact) >= 0.95
    assert fast.recall >= 0.97
    assert (fast.built.rows, fast.built.added.ntotal) == (6000, 6000)
    assert fast.card() == {
        "mode": "fast",
        "lists": fast.built.lists,
        "nprobe": fast.nprobe,
        "recall_at_8": round(fast.recall, 4),
    }


def test_looking_into_one_list_finds_less() -> None:
    parts = arrays()
    fast = build_fast_index(lambda: iter(parts))
    queries = np.concatenate(parts)[::20]
    exact = exact_neighbours(iter(parts), queries)

    fast.built.added.nprobe = 1

    assert fast.nprobe > 1
    assert recall_of(fast.built.added, queries, exact) < fast.recall


def test_the_file_is_rvcs_form_and_keeps_the_number_of_lists_looked_into(tmp_path: Path) -> None:
    parts = arrays()
    fast = build_fast_index(lambda: iter(parts))
    again = build_fast_index(lambda: iter(parts))

    retrieval.write_index(fast.built, tmp_path / "a.index")
    retrieval.write_index(again.built, tmp_path / "b.index")
    index = retrieval.read_index(tmp_path / "a.index", width=24)

    assert (tmp_path / "a.index").read_bytes() == (tmp_path / "b.index").read_bytes()
    assert index.rows == 6000
    assert index._index.nprobe == fast.nprobe
    np.testing.assert_array_equal(index.vectors, np.concatenate(parts))
    mixed = index.mix(parts[2][:50], 1.0)
    np.testing.assert_allclose(mixed, parts[2][:50], atol=1e-4)  # an exact hit gives the stored vector


def test_nothing_mixed_widths_and_nan_are_refused() -> None:
    with pytest.raises(DatasetEmpty):
        build_fast_index(lambda: iter([]))
    with pytest.raises(InvalidInput, match=r"widths found: \[8, 24\]"):
        build_fast_index(lambda: iter([np.zeros((9, 24), np.float32), np.zeros((9, 8), np.float32)]))
    with pytest.raises(InvalidInput, match="not finite"):
        build_fast_index(lambda: iter([np.full((9, 24), np.nan, np.float32)]))


def test_few_rows_are_one_list() -> None:
    few = [np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)]

    fast = build_fast_index(lambda: iter(few))

    assert (fast.built.lists, fast.nprobe, fast.built.rows) == (1, 1, 5)
