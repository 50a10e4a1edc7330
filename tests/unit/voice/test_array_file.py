"""RVC's feature files go in and out; see test_hostile_files.py for those that lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.array_file import TOTAL_FEATURES, read_array, read_features, write_features


def features(rows: int = 7, width: int = 768) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)


def test_features_are_written_as_numpy_writes_them(tmp_path: Path) -> None:
    np.save(tmp_path / "numpy.npy", features())

    write_features(tmp_path / TOTAL_FEATURES, features())

    assert (tmp_path / TOTAL_FEATURES).read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    np.testing.assert_array_equal(read_features(tmp_path / TOTAL_FEATURES, width=768), features())


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_layout_of_numbers_is_read(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.asarray(features(), dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save(tmp_path / "a.npy", values)

    np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), values)
    held = read_features(tmp_path / "a.npy")
    assert held.dtype == np.float32
    assert held.flags.c_contiguous
    np.testing.assert_array_equal(held, values.astype(np.float32))


def test_pitch_files_of_integers_and_doubles_are_read(tmp_path: Path) -> None:
    for values in (np.arange(5), np.arange(5, dtype=np.int32), np.linspace(0, 1, 9), np.zeros((0, 768), np.float32)):
        np.save(tmp_path / "a.npy", values)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), values)


def test_the_second_version_of_the_format_is_read(tmp_path: Path) -> None:
    with (tmp_path / "a.npy").open("wb") as file:
        np.lib.format.write_array(file, features(), version=(2, 0))

    np.testing.assert_array_equal(read_features(tmp_path / "a.npy"), features())


def test_arrays_that_are_no_features_are_refused(tmp_path: Path) -> None:
    broken = features()
    broken[0, 0] = np.inf
    for values, reason in (
        (np.zeros(5, np.float32), r"features are \[N, width\]"),
        (np.zeros((5, 768), np.int64), r"features are \[N, width\]"),
        (features(width=256), "256 values and 768 are needed"),
        (broken, "not finite"),
    ):
        np.save(tmp_path / "a.npy", values)
        with pytest.raises(ModelFileRefused, match=reason):
            read_features(tmp_path / "a.npy", width=768)


def test_a_file_over_the_limit_a_missing_one_and_another_shape_are_told(tmp_path: Path) -> None:
    write_features(tmp_path / "a.npy", features())

    with pytest.raises(ModelFileRefused, match="the limit is 100"):
        read_array(tmp_path / "a.npy", max_bytes=100)
    with pytest.raises(NotFound):
        read_array(tmp_path / "b.npy")
    with pytest.raises(ValueError, match="width"):
        write_features(tmp_path / "c.npy", np.zeros(3, np.float32))
