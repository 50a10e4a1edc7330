"""What do RVC's own files hold, and how do they become networks and back?"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.voice.rvc.config import NetworkConfig, config_from_export
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.safe_load import load_tensors

_PARAMETRISED = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


def export_dict(network: SynthesizerNetwork) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Half-precision weights without the posterior encoder, and RVC's other keys: config, sr, f0, version."""
    c = network.config
    weights = {
        name: value.detach().cpu().half().contiguous().clone()
        for name, value in network.state_dict().items()
        if not name.startswith("enc_q.")
    }
    return weights, {
        "kind": "rvc",
        "config": c.export_list(),
        "info": "",
        "sr": f"{c.sample_rate // 1000}k",
        "f0": int(c.f0),
        "version": c.version,
    }


def old_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weight norm in the newer parametrised form (Applio) renamed to weight_g and weight_v; other names stay."""
    renamed = {}
    for name, value in state.items():
        for new, old in _PARAMETRISED.items():
            if name.endswith(new):
                name = name.removesuffix(new) + old
        renamed[name] = value
    return renamed


def network_from_export(file: dict[str, Any], name: str) -> SynthesizerNetwork:
    """The network (float32, evaluation mode) that an exported file's dict describes.

    `name` is for messages. Missing `f0` means 1, missing `version` means v1. Raises ModelFileRefused when a tensor is
    missing or has another shape than the configuration gives: nothing is left at random.
    """
    weights = file.get("weight")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelFileRefused(f"{name} holds no `weight`: it is no exported RVC voice")
    if file.get("vocoder", "HiFi-GAN") != "HiFi-GAN":
        raise ModelFileRefused(f"{name} uses the vocoder {file['vocoder']}; HiFi-GAN is supported")
    state = {key: value.float() for key, value in old_names(weights).items() if not key.startswith("enc_q.")}
    table = state.get("emb_g.weight")
    if table is None or table.ndim != 2:
        raise ModelFileRefused(f"{name} holds no speaker table emb_g.weight")
    config = config_from_export(
        file.get("config"),
        version=file.get("version", "v1"),
        f0=bool(file.get("f0", 1)),
        speakers=table.shape[0],
    )
    _compare(state, config, name)
    network = SynthesizerNetwork(config, with_posterior=False)
    network.load_state_dict(state)
    return network.eval()


def _compare(state: dict[str, Tensor], config: NetworkConfig, name: str) -> None:
    # the shapes are compared before anything is allocated: a file's numbers may claim any size
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in SynthesizerNetwork(config, with_posterior=False).state_dict().items()}
    given = {key: tuple(value.shape) for key, value in state.items()}
    for key in expected.keys() - given.keys():
        raise ModelFileRefused(f"{name} lacks the tensor {key}")
    for key, shape in given.items():
        if key not in expected:
            raise ModelFileRefused(f"{name} holds a tensor {key} that its configuration has no place for")
        if expected[key] != shape:
            raise ModelFileRefused(
                f"{name}: {key} has shape {list(shape)}, its configuration needs {list(expected[key])}"
            )
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelFileRefused(f"{name}: {key} holds values that are not finite")


def training_state(path: Path) -> dict[str, Tensor]:
    """The `model` of a training checkpoint or pretrained base (`G_*.pth`, `f0G40k.pth`), in RVC's older names."""
    file = load_tensors(path)
    model = file.get("model") if isinstance(file, dict) else None
    if not isinstance(model, dict) or not all(isinstance(value, Tensor) for value in model.values()):
        raise ModelFileRefused(f"{path.name} holds no `model`: it is no RVC training checkpoint or base model")
    return old_names(model)


def file_dict(weights: dict[str, Tensor], config: dict[str, Any]) -> OrderedDict[str, Any]:
    """What `torch.save` gets for an RVC voice: exactly RVC's keys, in RVC's order."""
    file: OrderedDict[str, Any] = OrderedDict(weight=OrderedDict(weights))
    for key in ("config", "info", "sr", "f0", "version"):
        file[key] = config[key]
    return file
