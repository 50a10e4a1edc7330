"""What do RVC's own files hold, and how do they become networks and back?"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.voice.rvc.config import NetworkConfig, config_from_export
from libs.voice.rvc.synthesizer import SynthesizerNetwork

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


def exported_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What a voice's file holds of a network: `old_names` without the posterior encoder, in the same order."""
    return {name: value for name, value in old_names(state).items() if not name.startswith("enc_q.")}


def network_from_export(file: dict[str, Any], name: str) -> SynthesizerNetwork:
    """The network (float32, evaluation mode) that an exported file's dict describes.

    `name` is for messages. Missing `f0` means 1, missing `version` means v1. Raises ModelFileRefused when a tensor is
    missing or has another shape than the configuration gives: nothing is left at random.
    """
    weights = file.get("weight")
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelFileRefused(f"{name} holds no `weight`: it is no exported RVC voice")
    state = exported_names(weights)
    config = config_of_export(file, weights, name)
    check_state(state, config, name)
    network = SynthesizerNetwork(config, with_posterior=False)
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return network.eval()


def config_of_export(file: dict[str, Any], weights: dict[str, Tensor], name: str) -> NetworkConfig:
    """The dimensions that an exported file's keys (`config`, `version`, `f0`) and its speaker table give.

    Raises ModelFileRefused for a vocoder other than HiFi-GAN, and when the numbers make no network.
    """
    if (file.get("vocoder") or "HiFi-GAN") != "HiFi-GAN":
        raise ModelFileRefused(f"{name} uses the vocoder {file['vocoder']}; HiFi-GAN is supported")
    table = weights.get("emb_g.weight")
    if table is None or table.ndim != 2 or not len(table):
        raise ModelFileRefused(f"{name} holds no speaker table emb_g.weight")
    return config_from_export(
        file.get("config"),
        version=file.get("version", "v1"),
        f0=bool(file.get("f0", 1)),
        speakers=table.shape[0],
    )


def shapes_of(config: NetworkConfig, *, with_posterior: bool) -> dict[str, tuple[int, ...]]:
    """Name → shape of every tensor that a network of this configuration has, in RVC's order; nothing is allocated."""
    with torch.device("meta"):
        network = SynthesizerNetwork(config, with_posterior=with_posterior)
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def check_state(state: dict[str, Tensor], config: NetworkConfig, name: str, *, with_posterior: bool = False) -> None:
    """Compare weights (in the older names) with what `config` needs, before anything is allocated for them.

    Raises ModelFileRefused that lists what is missing, superfluous, of another shape, or not finite.
    """
    expected = shapes_of(config, with_posterior=with_posterior)
    if differences := shape_differences(state, expected):
        raise ModelFileRefused(f"{name} does not fit its configuration: {differences}")
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelFileRefused(f"{name}: {key} holds values that are not finite")


def shape_differences(given: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> str:
    """What differs between tensors and the shapes that are needed, in words; empty when nothing does."""
    lacking = [key for key in expected if key not in given]
    superfluous = [key for key in given if key not in expected]
    wrong = [
        f"{key} has shape {list(given[key].shape)} and needs {list(shape)}"
        for key, shape in expected.items()
        if key in given and tuple(given[key].shape) != shape
    ]
    parts = []
    if lacking:
        parts.append(f"it lacks {_some(lacking)}")
    if superfluous:
        parts.append(f"there is no place for {_some(superfluous)}")
    if wrong:
        parts.append(_some(wrong, "; "))
    return "; ".join(parts)


def _some(names: list[str], join: str = ", ", most: int = 5) -> str:
    rest = len(names) - most
    return join.join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def rate_of(values: dict[str, Any]) -> int:
    """The sample rate in Hz that a voice file's keys tell: the last item of its config, else `sr` (40000 or "40k")."""
    config = values.get("config")
    rate = config[-1] if isinstance(config, (list, tuple)) and config else values.get("sr")
    try:
        if isinstance(rate, str) and rate.endswith("k"):
            return int(rate[:-1]) * 1000
        return int(rate)  # type: ignore[arg-type] # anything else is refused below
    except (TypeError, ValueError) as error:
        raise ModelFileRefused(f"the sample rate is {rate!r}, which is no number of Hz") from error


def file_dict(weights: dict[str, Tensor], values: dict[str, Any]) -> OrderedDict[str, Any]:
    """What `torch.save` gets for an RVC voice: `weight` and then `values` in their order.

    RVC's own are config, info, sr, f0, version; `export_dict` gives exactly these. Applio's others are kept.
    """
    return OrderedDict(weight=OrderedDict(weights), **values)
