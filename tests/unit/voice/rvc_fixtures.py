"""The reference numbers of RVC's own code: where they are, and how their weights are drawn."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from libs.voice.rvc.config import NetworkConfig

FIXTURES = Path(os.environ.get("VOICE_FIXTURES", "/nonexistent"))
needs_fixtures = pytest.mark.skipif("VOICE_FIXTURES" not in os.environ, reason="VOICE_FIXTURES is not set")


def read_json(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FIXTURES / name).read_text())
    return value


def read_arrays(name: str) -> dict[str, Tensor]:
    with np.load(FIXTURES / name, allow_pickle=False) as archive:
        return {key: torch.from_numpy(archive[key]) for key in archive.files}


def config_of(values: dict[str, Any], version: str, f0: bool) -> NetworkConfig:
    """The network that a fixture's `config` describes."""
    return NetworkConfig(
        version=version,
        sample_rate=values["sr"],
        filter_length=values["filter_length"],
        n_mels=values["n_mel_channels"],
        segment_frames=values["segment_frames"],
        upsample_rates=tuple(values["upsample_rates"]),
        upsample_kernel_sizes=tuple(values["upsample_kernel_sizes"]),
        f0=f0,
        inter_channels=values["inter_channels"],
        hidden_channels=values["hidden_channels"],
        filter_channels=values["filter_channels"],
        n_heads=values["n_heads"],
        n_layers=values["n_layers"],
        kernel_size=values["kernel_size"],
        dropout=values["p_dropout"],
        resblock_kernels=tuple(values["resblock_kernel_sizes"]),
        resblock_dilations=tuple(map(tuple, values["resblock_dilation_sizes"])),
        upsample_initial_channel=values["upsample_initial_channel"],
        speakers=values["spk_embed_dim"],
        gin_channels=values["gin_channels"],
    )


def draw_weights(module: nn.Module, seed: int) -> None:
    """Fill `module` as `recipe.json` says: keys sorted, one frozen random stream per key."""
    state = module.state_dict()
    drawn = {}
    for i, name in enumerate(sorted(state)):
        shape = tuple(state[name].shape)
        n = np.random.RandomState(seed + i).standard_normal(shape).astype(np.float32)
        drawn[name] = torch.from_numpy(np.asarray(_scaled(name, n), dtype=np.float32))
    module.load_state_dict(drawn)


def _scaled(name: str, n: Any) -> Any:
    fan = np.float32(math.sqrt(math.prod(n.shape[1:]))) if n.ndim > 1 else np.float32(1)
    tenth, one = np.float32(0.1), np.float32(1)
    if name.startswith("discriminators.") and name.endswith("weight_g"):
        return np.float32(1.5) + np.float32(0.15) * n
    if name.endswith(("weight_g", "gamma")):
        return one + tenth * n
    if name.endswith("weight_v"):
        return n
    if name.endswith("beta") or name.rsplit(".", 1)[-1].startswith("bias"):
        return tenth * n
    if name == "emb_g.weight" or name.endswith("emb_pitch.weight"):
        return np.float32(0.3) * n
    if name.endswith(("emb_rel_k", "emb_rel_v")):
        return tenth * n
    if name.endswith("l_linear.weight"):
        return one + tenth * n
    if n.ndim == 1:
        return one + tenth * n
    if name in ("enc_q.proj.weight", "enc_q.pre.weight", "enc_p.proj.weight"):
        return np.float32(0.2) * n / fan
    return np.float32(0.5) * n / fan if n.ndim == 4 else n / fan


def assert_near(value: Tensor, reference: Tensor, atol: float = 2e-5, rtol: float = 1e-3) -> None:
    """The fixtures' own rule: max abs error ≤ atol + rtol * max |reference|."""
    assert value.shape == reference.shape, (value.shape, reference.shape)
    error = float((value.detach().float() - reference.float()).abs().max())
    assert error <= atol + rtol * float(reference.abs().max()), error
