"""Where are the reference fixtures? Tests that need them skip with the reason when they are not there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from libs.voice.reference.recipe import WeightRecipe


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


def recipe_state(shapes: dict[str, list[int]], seed: int) -> dict[str, torch.Tensor]:
    """Weights by the fixtures' recipe, for networks without stored ones."""
    recipe = WeightRecipe(fixture_folder("inventory").parent / "recipe.json")
    return recipe.state({key: tuple(shape) for key, shape in shapes.items()}, seed)
