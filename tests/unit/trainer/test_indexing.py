"""Are both kinds of index built from a folder's features, and told for the voice card?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from libs.common.events import BuildIndex, TrainingOptions
from libs.voice.retrieval import read_index
from services.trainer.indexing import build


@pytest.fixture
def features(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.npy" for number in range(4)]
    for path in paths:
        np.save(path, rng.standard_normal((300, 16)).astype(np.float32))
    return paths


def test_each_mode_builds_its_index_and_tells_its_numbers(features: list[Path], tmp_path: Path) -> None:
    rvc = build(features, tmp_path / "rvc.index")
    fast = build(features[::-1], tmp_path / "fast.index", "fast")

    assert rvc == {"rows": 1200, "card": {"mode": "rvc", "lists": 30, "nprobe": 1, "reduced": False}}
    assert (fast["rows"], fast["card"]["mode"]) == (1200, "fast")
    assert fast["card"]["recall_at_8"] >= 0.97
    assert fast["card"]["nprobe"] > 1
    for name in ("rvc", "fast"):
        assert read_index(tmp_path / f"{name}.index", width=16).rows == 1200
    np.testing.assert_array_equal(
        read_index(tmp_path / "fast.index").vectors, np.concatenate([np.load(path) for path in features])
    )


def test_the_index_is_rvcs_unless_the_job_asks_for_the_other() -> None:
    assert TrainingOptions().index_mode == "rvc"
    assert BuildIndex.model_fields["index_mode"].default == "rvc"
