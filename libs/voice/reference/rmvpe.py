"""Kind `RMVPE`: mel, network in two sizes with what lies between its parts, and decoding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import NETWORK, Ledger, Tolerance
from libs.voice.reference.recipe import WeightRecipe
from libs.voice.rmvpe import Rmvpe, RmvpeNetwork, decode, log_mel

SURE_MARGIN = 1e-3
"""Frames whose two largest saliences are closer are not compared: the highest bin may be either."""
PROBE_VALUES = 500


def check_rmvpe(facts: Facts, ledger: Ledger, archive: str) -> None:
    """Everything of one RMVPE fixture; weights are drawn by the recipe."""
    facts.prose("weights", "definitions")
    tolerances = {name: Tolerance.of(facts["tolerance"][name]) for name in facts["tolerance"].names()}
    recipe = WeightRecipe(ledger.file("../recipe.json"))
    ledger.documented(archive, facts["arrays"])
    with ledger.part("mel"):
        mel = log_mel(ledger.tensor(archive, "wav"))
        ledger.check(archive, "mel", mel, tolerances["mel"])
    with ledger.part("reduced network"):
        small = _network(facts["small"], recipe, ledger)
        salience = Rmvpe(small).salience(ledger.tensor(archive, "small_mel"))
        ledger.check(archive, "small_salience", salience, tolerances["salience"])
    with ledger.part("full network"):
        _full(_network(facts["full"], recipe, ledger), ledger, archive, tolerances)
    with ledger.part("decoding"):
        _decoding(ledger, archive, tolerances["decode"])


def _network(facts: Facts, recipe: WeightRecipe, ledger: Ledger) -> RmvpeNetwork:
    """A network of the constructor's sizes with its drawn weights; names and shapes compared where they are listed."""
    sizes = facts["constructor"].take()
    fixed = {"n_gru": 1, "kernel_size": [2, 2], "in_channels": 1}
    ledger.same("constructor", {key: sizes[key] for key in fixed}, fixed)
    network = RmvpeNetwork(
        sizes["n_blocks"], sizes["en_de_layers"], sizes["inter_layers"], sizes["en_out_channels"]
    ).eval()
    shapes = {key: list(value.shape) for key, value in network.state_dict().items()}
    ledger.same("n_keys", len(shapes), facts["n_keys"])
    if "n_values" in facts:
        values = sum(value.numel() for value in network.state_dict().values())
        ledger.same("n_values", values, facts["n_values"])
    if "keys" in facts:
        ledger.same("names and shapes", shapes, facts.take("keys"))
    recipe.fill(network, facts["weight_seed"])
    return network


def _full(network: RmvpeNetwork, ledger: Ledger, archive: str, tolerances: dict[str, Tolerance]) -> None:
    mel = torch.from_numpy(ledger.arrays(archive)["mel"])
    zeros = Rmvpe(network, padding="zeros")
    with _probes(network) as probes:
        salience = zeros.salience(mel).numpy()
    for name, value in probes.items():
        stored = value.flatten()[:: max(1, value.numel() // PROBE_VALUES)]
        ledger.check(archive, f"probe_{name}_l2", value.norm(), NETWORK)
        ledger.check(archive, f"probe_{name}_sample", stored, NETWORK)
    margin = np.sort(salience, axis=1)
    reflected = Rmvpe(network, padding="reflect").salience(mel)
    wide = Tolerance(2 * tolerances["salience"].atol)
    ledger.check(archive, "full_salience", salience, tolerances["salience"])
    ledger.check(archive, "full_salience_reflect_pad", reflected, tolerances["salience"])
    ledger.check(archive, "full_top2_margin", margin[:, -1] - margin[:, -2], wide)
    sure = ledger.arrays(archive)["full_top2_margin"] > SURE_MARGIN
    for key in ledger.arrays(archive):
        if found := re.fullmatch(r"full_f0_thr([\d.]+)", key):
            ledger.check(archive, key, decode(salience, float(found[1])), tolerances["f0"], sure)
    wave = ledger.arrays(archive)["wav"]
    ledger.check(archive, "full_f0_from_audio", zeros.f0(wave), tolerances["f0"], sure)


@contextmanager
def _probes(network: RmvpeNetwork) -> Iterator[dict[str, Tensor]]:
    """What the parts of the network give, recorded while inside."""
    found: dict[str, Tensor] = {}

    def record(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            found[name] = (output[0] if isinstance(output, tuple) else output).detach().clone()

        return hook

    unet = network.unet
    parts = {
        "encoder_out": unet.encoder,
        "intermediate_out": unet.intermediate,
        "decoder_out": unet.decoder,
        "cnn_out": network.cnn,
    }
    handles = [module.register_forward_hook(record(name)) for name, module in parts.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _decoding(ledger: Ledger, archive: str, tolerance: Tolerance) -> None:
    """Hand-made saliences: edges, ties, two peaks, exactly at the threshold, nothing at all."""
    salience = ledger.given(archive, "decode_salience")
    for key in ledger.arrays(archive):
        if found := re.fullmatch(r"decode_(f0|cents)_thr([\d.]+)", key):
            f0 = decode(salience, float(found[2]))
            cents = np.where(f0 > 0, 1200 * np.log2(np.maximum(f0, 1e-9) / 10), 0.0)
            ledger.check(archive, key, f0 if found[1] == "f0" else cents, tolerance)
