"""Lists of names and shapes: has every network of ours the same tensors in the same order as the reference's?"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn

from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger
from libs.voice.rmvpe import RmvpeNetwork
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.synthesizer import SynthesizerNetwork


def check_inventory(facts: Facts, ledger: Ledger) -> None:
    """`synth_<version>_<rate>_<f0|nof0>`, `disc_<version>` or `rmvpe`: names, shapes, order and sums."""
    name = facts["name"]
    facts.prose("order")
    listed = facts.take("keys")
    with torch.device("meta"):
        network = _network(name)
    ours = {key: list(value.shape) for key, value in network.state_dict().items()}
    with ledger.part(name):
        ledger.same("n_keys", len(ours), facts["n_keys"])
        ledger.same("n_values", sum(math.prod(shape) for shape in ours.values()), facts["n_values"])
        ledger.same("names and their order", list(ours), list(listed))
        for key, shape in listed.items():
            if ours.get(key) != shape:
                ledger.fail(key, f"shape {ours.get(key)} instead of {shape}")
        ledger.same("shapes", ours, listed)
        if not isinstance(network, RmvpeNetwork):
            # Optimizer states of checkpoints go by the position of the parameters.
            parameters = [key for key, _ in network.named_parameters()]
            ledger.same("order of the parameters", parameters, list(listed))


def _network(name: str) -> nn.Module:
    kind, *rest = name.split("_")
    if kind == "synth":
        version, rate, f0 = rest
        return SynthesizerNetwork(dataclasses.replace(CONFIGS[f"rvc-{version}-{rate}"], f0=f0 == "f0"))
    if kind == "disc":
        return Discriminators(rest[0])
    if kind == "rmvpe" and not rest:
        return RmvpeNetwork()
    raise ValueError(f"no network is known by the name {name!r}")
