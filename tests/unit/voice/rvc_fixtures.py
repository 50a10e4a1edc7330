"""The reference numbers of RVC's own code: where they are, and how their weights are drawn."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from libs.voice.reference.recipe import WeightRecipe
from libs.voice.reference.synthesizer import config_of

__all__ = ["FIXTURES", "assert_near", "config_of", "draw_weights", "needs_fixtures", "read_arrays", "read_json"]

FIXTURES = Path(os.environ.get("VOICE_FIXTURES", "/nonexistent"))
needs_fixtures = pytest.mark.skipif("VOICE_FIXTURES" not in os.environ, reason="VOICE_FIXTURES is not set")


def read_json(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FIXTURES / name).read_text())
    return value


def read_arrays(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / name, allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def draw_weights(module: nn.Module, seed: int) -> None:
    """Fill `module` as `recipe.json` says: keys sorted, one frozen random stream per key."""
    WeightRecipe(FIXTURES / "recipe.json").fill(module, seed)


def assert_near(value: Tensor, reference: Tensor, atol: float = 2e-5, rtol: float = 1e-3) -> None:
    """The fixtures' own rule: max abs error ≤ atol + rtol * max |reference|."""
    assert value.shape == reference.shape, (value.shape, reference.shape)
    error = float((value.detach().float() - reference.float()).abs().max())
    assert error <= atol + rtol * float(reference.abs().max()), error
