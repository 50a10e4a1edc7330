"""Do our indices read, search and mix as RVC's, and are lying files refused before faiss sees them?"""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import DatasetEmpty, InvalidInput, ModelFileRefused, NotFound
from libs.voice import retrieval
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json


def frames(rows: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_references_index_files_are_read_and_hold_its_vectors(version: str) -> None:
    about = fixture_json("pipeline")["index"][version]

    index = retrieval.read_index(fixture_folder("pipeline") / about["added"], width=about["dim"])

    assert (index.rows, index.width) == (about["N"], about["dim"])
    assert retrieval.list_count(about["N"]) == about["nlist"]
    expected = fixture_arrays("pipeline")[f"index_{version}_reconstructed_first3_cols8"]
    np.testing.assert_array_equal(index.vectors[:3, :8], expected)


def test_searching_and_mixing_are_the_references() -> None:
    arrays = fixture_arrays("pipeline")
    for case in fixture_json("pipeline")["retrieval"]["cases"]:
        # With protect the reference mixes again by voicing; that belongs to the chain and is tested there.
        if case["index"] is None:
            continue
        index = retrieval.read_index(fixture_folder("pipeline") / case["index"])
        features = arrays[case["prefix"] + "feats"][0]

        distances, ids = index.search(features)

        np.testing.assert_array_equal(ids, arrays[case["prefix"] + "search_ids"])
        expected = arrays[case["prefix"] + "search_score"]
        reachable = expected < 1e30
        np.testing.assert_allclose(distances[reachable], expected[reachable], rtol=1e-4)
        if case["protect"] == 0.5:
            mixed = np.repeat(index.mix(features, case["index_rate"]), 2, axis=0)
            np.testing.assert_allclose(mixed, arrays[case["prefix"] + "net_feats"][0], atol=1e-4)


def test_an_exact_hit_gives_the_stored_vector_and_not_nan() -> None:
    arrays = fixture_arrays("pipeline")
    index = retrieval.read_index(fixture_folder("pipeline") / fixture_json("pipeline")["index"]["v1"]["added"])
    features = arrays["exact_hit_feats"][0]

    mixed = index.mix(features, 1.0)

    np.testing.assert_allclose(mixed, features, atol=1e-5)


def test_the_references_index_has_the_form_of_ours() -> None:
    about = fixture_json("pipeline")["index"]["v1"]
    theirs = faiss.read_index(str(fixture_folder("pipeline") / about["added"]))
    ours = retrieval.build_index([frames(about["N"], 256)])

    assert type(ours.added) is type(theirs)
    assert (ours.added.nlist, ours.added.nprobe, ours.added.d) == (theirs.nlist, theirs.nprobe, theirs.d)
    assert retrieval.file_name("added", ours.lists, "demov1", "v1") == about["added"]


def test_an_index_is_written_under_rvcs_names_and_read_back(tmp_path: Path) -> None:
    rows = frames(300)
    built = retrieval.build_index([rows[:100], rows[100:]])

    trained, added = retrieval.write_rvc_files(built, tmp_path, "anna", "v2")

    assert trained.name == "trained_IVF7_Flat_nprobe_1_anna_v2.index"
    assert added.name == "added_IVF7_Flat_nprobe_1_anna_v2.index"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([trained.name, added.name])
    again = retrieval.read_index(added, width=16)
    assert {row.tobytes() for row in again.vectors} == {row.tobytes() for row in rows}
    np.testing.assert_allclose(again.mix(rows[:5], 1.0), rows[:5], atol=1e-5)


def test_the_same_features_give_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        retrieval.write_index(retrieval.build_index([frames(500)], seed=3), tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_large_set_is_reduced_to_centres_that_stay_near_it() -> None:
    blobs = frames(20, 8, seed=1) * 20
    rows = (blobs[np.random.default_rng(2).integers(0, 20, 3000)] + frames(3000, 8, seed=3)).astype(np.float32)

    built = retrieval.build_index([rows], reduce_above=400)

    index = retrieval.index_of(built)
    assert built.reduced
    assert index.rows == 400
    distance = np.linalg.norm(index.vectors[:, None] - blobs[None], axis=2).min(axis=1)
    assert distance.max() < 8


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(1, 60), rate=st.floats(0.0, 1.0))
def test_mixing_never_leaves_the_finite_and_keeps_its_shape(rows: int, rate: float) -> None:
    index = retrieval.index_of(retrieval.build_index([frames(rows)]))
    features = frames(7, seed=9)

    mixed = index.mix(features, rate)

    assert mixed.shape == features.shape
    assert mixed.dtype == np.float32
    assert np.isfinite(mixed).all()


def test_no_features_and_mixed_widths_are_refused() -> None:
    with pytest.raises(DatasetEmpty):
        retrieval.build_index([])
    with pytest.raises(InvalidInput, match="widths"):
        retrieval.build_index([frames(5, 8), frames(5, 9)])
    with pytest.raises(InvalidInput, match="finite"):
        retrieval.build_index([np.full((5, 8), np.nan, dtype=np.float32)])


def test_features_of_another_width_are_refused() -> None:
    index = retrieval.index_of(retrieval.build_index([frames(50)]))

    with pytest.raises(InvalidInput, match="16"):
        index.mix(frames(3, 8), 0.5)


def test_a_trained_file_without_vectors_is_refused() -> None:
    path = fixture_folder("pipeline") / fixture_json("pipeline")["index"]["v1"]["trained"]

    with pytest.raises(ModelFileRefused, match="added_"):
        retrieval.read_index(path)


def test_an_index_of_another_version_or_size_is_refused(tmp_path: Path) -> None:
    retrieval.write_index(retrieval.build_index([frames(50)]), tmp_path / "a.index")

    with pytest.raises(ModelFileRefused, match="768"):
        retrieval.read_index(tmp_path / "a.index", width=768)
    with pytest.raises(ModelFileRefused, match="accepted"):
        retrieval.read_index(tmp_path / "a.index", max_bytes=100)
    with pytest.raises(NotFound):
        retrieval.read_index(tmp_path / "b.index")


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.index").write_text("hello")
    (tmp_path / "empty.index").write_bytes(b"")
    faiss.write_index(faiss.index_factory(8, "HNSW8"), str(tmp_path / "hnsw.index"))
    product = faiss.index_factory(8, "IVF1,Flat", faiss.METRIC_INNER_PRODUCT)
    product.train(frames(40, 8))
    faiss.write_index(product, str(tmp_path / "product.index"))

    for name in ("text", "empty", "hnsw", "product"):
        with pytest.raises(ModelFileRefused, match=name):
            retrieval.read_index(tmp_path / f"{name}.index")


def test_sizes_that_lie_are_refused_wherever_they_stand(tmp_path: Path) -> None:
    retrieval.write_index(retrieval.build_index([frames(80, 4)]), tmp_path / "good.index")
    good = (tmp_path / "good.index").read_bytes()
    # Offsets of: vector count, list count, centre count, size of the centres, direct map, then of the list table.
    centres = 4 + 33 + 16 + 4 + 33
    table = centres + 8 + 2 * 4 * 4 + 9 + 4
    offsets = [
        8,
        37,
        4 + 33 + 16 + 4 + 4,
        centres,
        centres + 8 + 2 * 4 * 4 + 1,
        table,
        table + 8,
        table + 20,
        table + 28,
    ]

    for offset in offsets:
        lie = good[:offset] + (2**40).to_bytes(8, "little") + good[offset + 8 :]
        (tmp_path / "lie.index").write_bytes(lie)
        with pytest.raises(ModelFileRefused, match=r"lie\.index"):
            retrieval.read_index(tmp_path / "lie.index")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_truncated_index_is_refused_wherever_it_ends(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("cut")
    retrieval.write_index(retrieval.build_index([frames(60, 4)]), folder / "good.index")
    good = (folder / "good.index").read_bytes()
    length = data.draw(st.integers(0, len(good) - 1))
    (folder / "cut.index").write_bytes(good[:length])

    with pytest.raises(ModelFileRefused):
        retrieval.read_index(folder / "cut.index")
