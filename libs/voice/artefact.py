"""How is a voice written to a file and opened again, whatever network it is?"""

from __future__ import annotations

import math
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.voice.atomic import save_tensors, write_atomically
from libs.voice.rvc.files import file_dict, network_from_export
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.safe_load import load_tensors
from libs.voice.synthesizer import Synthesizer


def write_voice(path: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> str:
    """Write what `Recipe.export` gave as one `.pth` file; returns its SHA-256 as hex.

    `kind` rvc: RVC's own dict (7.1 of its format: weight, config, info, sr, f0, version), which RVC and Applio open.
    `kind` lite: {"kind", "weight", "config"}. The same weights give the same bytes. Atomic; raises StorageFull.
    """
    kind = config.get("kind")
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    if kind == "rvc":
        content: Any = file_dict(kept, config)
    elif kind == "lite":
        plain = {key: value for key, value in config.items() if key != "kind"}
        content = {"kind": "lite", "weight": OrderedDict(kept), "config": plain}
    else:
        raise ValueError(f"kind is {kind!r}; a voice is rvc or lite")
    content = _canonical(content)
    return write_atomically(path, lambda stream: save_tensors(content, stream))


def load_synthesizer(path: Path, device: torch.device | str = "cpu") -> Synthesizer:
    """Open the voice at `path` (ours, RVC's or Applio's export, half or float). Raises NotFound, ModelFileRefused."""
    file = load_tensors(path)
    if not isinstance(file, dict):
        raise ModelFileRefused(f"{path.name} is no voice: it holds a {type(file).__name__}")
    device = torch.device(device)
    if file.get("kind") == "lite":
        return _lite(file, path.name, device)
    if "model" in file and "weight" not in file:
        raise ModelFileRefused(f"{path.name} is a training checkpoint; export a voice from it first")
    return RvcSynthesizer(network_from_export(file, path.name), device)


def _lite(file: dict[str, Any], name: str, device: torch.device) -> Synthesizer:
    from libs.voice.lite import LiteConfig, LiteSynthesizer

    values, weights = file.get("config"), file.get("weight")
    if not isinstance(values, dict) or not isinstance(weights, dict):
        raise ModelFileRefused(f"{name} holds no configuration or no weights")
    known = LiteConfig().as_dict()
    limits = {"sample_rate": 192_000, "content_width": 4096, "fft": 16_384, "width": 4096, "hidden": 16_384}
    for key, value in values.items():
        if key not in known or not isinstance(value, int) or not 1 <= value <= limits.get(key, 64):
            raise ModelFileRefused(f"{name}: {key} is {value!r}, which no lite voice has")
    config = LiteConfig(**values)
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in LiteSynthesizer(config).state_dict().items()}
    for key, shape in expected.items():
        tensor = weights.get(key)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise ModelFileRefused(f"{name}: {key} is missing or not of shape {list(shape)}")
        if not math.isfinite(float(tensor.double().abs().sum())):
            raise ModelFileRefused(f"{name}: {key} holds values that are not finite")
    network = LiteSynthesizer(config)
    network.load_state_dict({key: weights[key].float() for key in expected})
    return network.to(device).eval().requires_grad_(False)


def _canonical(value: Any) -> Any:
    """Equal text becomes one object: pickle writes the second mention of an object shorter than of its equal."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, OrderedDict):
        return OrderedDict((_canonical(key), _canonical(each)) for key, each in value.items())
    if isinstance(value, dict):
        return {_canonical(key): _canonical(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    return value
