"""Kind `full-size networks, weights from recipe.json`: RVC's own sizes, with drawn weights instead of stored ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.reference.recipe import WeightRecipe
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.discriminator import Discriminators, Judgement
from libs.voice.rvc.layers import no_noise
from libs.voice.rvc.losses import adversarial_loss, discriminator_loss, feature_loss
from libs.voice.rvc.synthesizer import SynthesizerNetwork


def check_fullsize(facts: Facts, ledger: Ledger, archive: str) -> None:
    """The whole synthesizer and both kinds of discriminators. `archive`: the arrays that belong to this JSON."""
    facts.prose("zeroed")
    tolerance = Tolerance.of(facts["tolerance"])
    recipe = WeightRecipe(ledger.file("../recipe.json"))
    ledger.documented(archive, facts["arrays"])
    for name in facts.names():
        if name == "synth":
            with ledger.part("full-size synthesizer"):
                _synthesizer(facts[name], ledger, archive, recipe, tolerance)
        elif name.startswith("disc_"):
            with ledger.part(f"full-size discriminators {name.removeprefix('disc_')}"):
                _discriminators(name, facts[name], ledger, archive, recipe, tolerance)


def _synthesizer(facts: Facts, ledger: Ledger, archive: str, recipe: WeightRecipe, tolerance: Tolerance) -> None:
    version, rate = facts["config"].removesuffix(".json").split("/")
    network = SynthesizerNetwork(CONFIGS[f"rvc-{version}-{rate}"]).eval()
    recipe.fill(network, facts["weight_seed"])
    held = ledger.arrays(archive)
    phone = ledger.tensor(archive, "synth_phone")
    lengths = torch.tensor([phone.shape[1]] * len(phone))
    pitch, f0 = (ledger.tensor(archive, key) if key in held else None for key in ("synth_pitch", "synth_pitchf"))
    with torch.no_grad():
        m, logs, _ = network.enc_p(phone, pitch, lengths)
        audio, z, _ = network.infer(
            phone,
            lengths,
            pitch,
            f0,
            torch.tensor([facts["speaker"]] * len(phone)),
            latent_noise=no_noise,
            source_noise=no_noise,
        )
    ledger.check(archive, "synth_m_p", m, tolerance)
    ledger.check(archive, "synth_logs_p", logs, tolerance)
    ledger.check(archive, "synth_z", z, tolerance)
    ledger.check(archive, "synth_audio", audio, tolerance)
    ledger.near("absmax", audio.abs().max(), np.float32(facts["absmax"]), tolerance)


def _discriminators(
    name: str, facts: Facts, ledger: Ledger, archive: str, recipe: WeightRecipe, tolerance: Tolerance
) -> None:
    judges = Discriminators(name.removeprefix("disc_")).eval()
    recipe.fill(judges, facts["weight_seed"])
    with torch.no_grad():
        real, made = judges.pair(ledger.tensor(archive, "disc_y"), ledger.tensor(archive, "disc_y_hat"))
    for kind, judgements in (("real", real), ("fake", made)):
        for i, (scores, _) in enumerate(judgements):
            ledger.check(archive, f"{name}_score_{kind}_{i}", scores, tolerance)
    for key, stored in ledger.arrays(archive).items():
        if key.startswith(f"{name}_fmap_"):
            how, kind = key.removeprefix(f"{name}_fmap_").split("_")
            table = _map_table(real if kind == "real" else made, how, stored.shape)
            ledger.check(archive, key, table, tolerance)
    ledger.near("d_loss", discriminator_loss(real, made), np.float32(facts["d_loss"]), tolerance)
    ledger.near("g_loss", adversarial_loss(made), np.float32(facts["g_loss"]), tolerance)
    ledger.near("feature_loss", feature_loss(real, made), np.float32(facts["feature_loss"]), tolerance)


def _map_table(judgements: list[Judgement], how: str, shape: tuple[int, ...]) -> Any:
    """One number per feature map: row = judge, column = layer, zeros where a judge has fewer."""
    measures = {"l2": lambda x: x.norm(), "mean": lambda x: x.mean()}
    table = np.zeros(shape, dtype=np.float32)
    for i, (_, maps) in enumerate(judgements):
        for j, each in enumerate(maps):
            table[i, j] = float(measures[how](each))
    return table
