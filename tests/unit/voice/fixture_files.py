"""Where are the reference fixtures? Tests that need them skip with the reason when they are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


def fixture_folder(group: str) -> Path:
    """The folder of one fixture group under `VOICE_FIXTURES`."""
    root = os.environ.get("VOICE_FIXTURES", "")
    folder = Path(root) / group
    if not root or not folder.is_dir():
        pytest.skip(f"set VOICE_FIXTURES to the folder of reference fixtures (no `{group}` found)")
    return folder


def fixture_json(group: str, name: str | None = None) -> dict[str, Any]:
    """The description of a fixture group."""
    document: dict[str, Any] = json.loads((fixture_folder(group) / f"{name or group}.json").read_text())
    return document


def fixture_arrays(group: str, name: str | None = None) -> dict[str, NDArray[Any]]:
    """The stored arrays of a fixture group."""
    with np.load(fixture_folder(group) / f"{name or group}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def recipe_value(key: str, number: int, shape: tuple[int, ...], seed: int) -> NDArray[Any]:
    """Weight `number` (in sorted key order) by the fixtures' weight recipe, for networks without stored weights."""
    if key.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    n = np.random.RandomState(seed + number).standard_normal(shape).astype(np.float32)
    last = key.rsplit(".", 1)[-1]
    one, tenth, fan = np.float32(1), np.float32(0.1), np.float32(np.sqrt(np.prod(shape[1:], dtype=np.float64)))
    if key.endswith("running_var"):
        return one + tenth * np.abs(n)
    if key.endswith("running_mean") or key.endswith("beta") or last.startswith("bias"):
        return tenth * n
    if key.endswith(("weight_g", "gamma")) or len(shape) == 1:
        return one + tenth * n
    if len(shape) == 4:
        return np.float32(0.5) * n / fan
    return n / fan
