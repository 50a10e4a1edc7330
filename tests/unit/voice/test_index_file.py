"""An index is measured before faiss sees it; see test_hostile_files.py for those that lie."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.index_file import IndexShape, check_index_file
from libs.voice.retrieval import read_index
from tests.unit.voice.fixture_files import fixture_folder, fixture_json

ROWS = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)


def made(path: Path, factory: str, *, nprobe: int | None = None, block: int = 500) -> Path:
    """An index made as RVC and Applio make it: a factory text, trained, nprobe set, filled block by block."""
    index = faiss.index_factory(8, factory)
    if nprobe is not None:
        index.nprobe = nprobe
    index.train(ROWS)
    for start in range(0, len(ROWS), block):
        index.add(ROWS[start : start + block])
    faiss.write_index(index, str(path))
    return path


@pytest.mark.parametrize(("lists", "nprobe", "block"), [(1, 1, 500), (12, 1, 64), (12, 9, 500), (400, 3, 500)])
def test_inverted_lists_are_measured_with_their_nprobe(tmp_path: Path, lists: int, nprobe: int, block: int) -> None:
    path = made(tmp_path / "a.index", f"IVF{lists},Flat", nprobe=nprobe, block=block)

    assert check_index_file(path, width=8) == IndexShape("ivf", 500, 8, lists, nprobe)


def test_flat_indices_are_measured_and_searched_exactly(tmp_path: Path) -> None:
    path = made(tmp_path / "a.index", "Flat")

    index = read_index(path, width=8)

    assert check_index_file(path) == IndexShape("flat", 500, 8, 0, 0)
    np.testing.assert_array_equal(index.vectors, ROWS)
    distances, ids = index.search(ROWS[:5])
    np.testing.assert_array_equal(ids[:, 0], np.arange(5))
    assert np.abs(distances[:, 0]).max() < 1e-4


def test_what_is_measured_is_what_faiss_reads(tmp_path: Path) -> None:
    path = made(tmp_path / "a.index", "IVF12,Flat", nprobe=3)

    shape, index = check_index_file(path), faiss.read_index(str(path))

    assert (shape.rows, shape.width, shape.lists, shape.nprobe) == (index.ntotal, index.d, index.nlist, index.nprobe)


@pytest.mark.parametrize("factory", ["IVF12,PQ4", "IVF12,SQ8", "PCA4,Flat", "IDMap,Flat", "LSH", "IVF4_HNSW8,Flat"])
def test_kinds_that_rvc_does_not_write_are_refused(tmp_path: Path, factory: str) -> None:
    index = faiss.index_factory(8, factory)
    index.train(ROWS)
    if factory == "IDMap,Flat":
        index.add_with_ids(ROWS, np.arange(500))
    else:
        index.add(ROWS)
    faiss.write_index(index, str(tmp_path / "a.index"))

    with pytest.raises(ModelFileRefused, match=r"a\.index"):
        check_index_file(tmp_path / "a.index")


def test_an_index_over_the_limit_of_another_width_or_missing_is_told(tmp_path: Path) -> None:
    path = made(tmp_path / "a.index", "Flat")

    with pytest.raises(ModelFileRefused, match="accepted"):
        check_index_file(path, max_bytes=100)
    with pytest.raises(ModelFileRefused, match="this voice needs 768"):
        check_index_file(path, width=768)
    with pytest.raises(NotFound):
        check_index_file(tmp_path / "b.index")


def test_the_references_files_are_measured() -> None:
    for version, about in fixture_json("pipeline")["index"].items():
        shape = check_index_file(fixture_folder("pipeline") / about["added"])

        assert shape == IndexShape("ivf", about["N"], 256 if version == "v1" else 768, about["nlist"], 1)
