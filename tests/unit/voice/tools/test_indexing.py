"""An index gives its features back, and features make an index, in RVC's files."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from libs.common.errors import DatasetEmpty, InvalidInput, ModelFileRefused, NotFound, StorageFull
from libs.voice import array_file
from libs.voice.array_file import TOTAL_FEATURES, read_features, write_feature_blocks
from libs.voice.retrieval import ADD_BLOCK, build_index, index_of, read_index, write_index
from libs.voice.tools import build_rvc_index, write_total_features
from libs.voice.tools.__main__ import app
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json


def rows(count: int, width: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


def test_an_index_gives_back_every_frame_that_it_was_built_from(tmp_path: Path) -> None:
    given = rows(ADD_BLOCK + 900)
    write_index(build_index([given]), tmp_path / "a.index")

    count = write_total_features(tmp_path / "a.index", tmp_path / TOTAL_FEATURES)

    held = read_features(tmp_path / TOTAL_FEATURES, width=16)
    assert count == len(held) == len(given)
    assert {row.tobytes() for row in held} == {row.tobytes() for row in given}
    np.testing.assert_array_equal(np.load(tmp_path / TOTAL_FEATURES), read_index(tmp_path / "a.index").vectors)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_references_index_gives_its_features(tmp_path: Path, version: str) -> None:
    about = fixture_json("pipeline")["index"][version]

    write_total_features(fixture_folder("pipeline") / about["added"], tmp_path / TOTAL_FEATURES)

    held = read_features(tmp_path / TOTAL_FEATURES, width=about["dim"])
    assert len(held) == about["N"]
    expected = fixture_arrays("pipeline")[f"index_{version}_reconstructed_first3_cols8"]
    np.testing.assert_array_equal(held[:3, :8], expected)


def test_the_vectors_are_taken_out_in_blocks_and_never_as_a_second_whole() -> None:
    index = index_of(build_index([rows(1000)]))

    blocks = list(index.blocks(300))

    assert [len(block) for block in blocks] == [300, 300, 300, 100]
    np.testing.assert_array_equal(np.concatenate(blocks), index.vectors)


@pytest.mark.parametrize(("width", "version"), [(256, "v1"), (768, "v2")])
def test_total_features_make_the_two_files_of_rvc(tmp_path: Path, width: int, version: str) -> None:
    given = rows(400, width)
    array_file.write_features(tmp_path / TOTAL_FEATURES, given)

    trained, added = build_rvc_index(tmp_path / TOTAL_FEATURES, tmp_path, "Anna")

    assert (trained.name, added.name) == tuple(
        f"{kind}_IVF10_Flat_nprobe_1_Anna_{version}.index" for kind in ("trained", "added")
    )
    assert {row.tobytes() for row in read_index(added).vectors} == {row.tobytes() for row in given}


def test_a_folder_of_features_is_taken_in_the_order_of_names_and_without_silence(tmp_path: Path) -> None:
    folder = tmp_path / "3_feature768"
    folder.mkdir()
    parts = {"0_1": rows(90, 768, 1), "0_0": rows(80, 768, 2), "mute": rows(149, 768, 3)}
    for name, part in parts.items():
        np.save(folder / f"{name}.npy", part)

    _, added = build_rvc_index(folder, tmp_path, "Anna")

    expected = build_index([parts["0_0"], parts["0_1"]])
    np.testing.assert_array_equal(read_index(added).vectors, index_of(expected).vectors)


def test_what_is_no_index_and_what_are_no_features_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.index").write_bytes(b"nothing")
    (tmp_path / "empty").mkdir()
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for width in (256, 768):
        np.save(mixed / f"{width}.npy", rows(5, width))
    np.save(tmp_path / "none.npy", np.zeros((0, 768), np.float32))
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(ModelFileRefused):
        write_total_features(tmp_path / "a.index", tmp_path / TOTAL_FEATURES)
    with pytest.raises(NotFound):
        build_rvc_index(tmp_path / "empty", tmp_path, "Anna")
    with pytest.raises(InvalidInput, match="widths"):
        build_rvc_index(mixed, tmp_path, "Anna")
    with pytest.raises(DatasetEmpty):
        build_rvc_index(tmp_path / "none.npy", tmp_path, "Anna")

    assert sorted(tmp_path.rglob("*")) == before


def test_features_that_break_off_leave_no_file(tmp_path: Path) -> None:
    target = tmp_path / TOTAL_FEATURES

    with pytest.raises(ValueError, match="9 rows were promised and 8 came"):
        write_feature_blocks(target, [rows(4), rows(4)], rows=9, width=16)
    with pytest.raises(ValueError, match="a block is"):
        write_feature_blocks(target, [rows(4), rows(4, 8)], rows=8, width=16)
    with pytest.raises(StorageFull):
        write_feature_blocks(target, a_full_disk(), rows=8, width=16)

    assert list(tmp_path.iterdir()) == []


def a_full_disk() -> Iterator[np.ndarray]:
    """One block, and then no space."""
    yield rows(4)
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_the_commands_lead_from_an_index_to_features_and_back(tmp_path: Path) -> None:
    write_index(build_index([rows(200, 768)]), tmp_path / "anna.index")

    def run(*arguments: object) -> dict[str, str]:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.output)  # type: ignore[no-any-return]

    said = run("features", tmp_path / "anna.index", "-o", tmp_path / TOTAL_FEATURES)
    made = run("index", tmp_path / TOTAL_FEATURES, "--into", tmp_path, "--name", "Anna")

    assert said == {"rows": 200}
    assert read_index(Path(made["added"])).rows == 200
    refused = CliRunner().invoke(
        app, ["index", str(tmp_path / TOTAL_FEATURES), "--into", str(tmp_path), "--name", "../x"]
    )
    assert refused.exit_code == 1
