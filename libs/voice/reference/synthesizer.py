"""Kind `synthesizer stages`: does each part of the network, and each file of it, give the reference's numbers?"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from libs.voice.artefact import write_voice
from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import Ledger, Tolerance
from libs.voice.reference.recipe import WeightRecipe
from libs.voice.reference.training import check_checkpoint, check_losses, check_mels, check_training_forward
from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.files import export_dict, network_from_export
from libs.voice.rvc.layers import fold_weight_norm, no_noise
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.safe_load import load_tensors

STAGES = "stages.npz"
# What RVC's own dict holds besides the weights; a file with other keys as well is Applio's.
_RVC_KEYS = ("weight", "config", "info", "sr", "f0", "version")


def check_stages(facts: Facts, ledger: Ledger) -> None:
    """Every array of `stages.npz`, every exported file, and the parts about training where the folder has them."""
    facts.prose("weights", "input_note", "zeroed", "definitions")
    tolerance = Tolerance.of(facts["tolerance"])
    tolerance_half = Tolerance.of(facts["tolerance_half"])
    version, f0 = facts["version"], bool(facts["f0"])
    config = config_of(facts["config"].take(), version, f0)
    network = SynthesizerNetwork(config).eval()
    WeightRecipe(ledger.file("../recipe.json")).fill(network, facts["weight_seed"])
    for archive, listed in facts["arrays"].items():
        with ledger.part(archive.removesuffix(".npz").replace("_", " ")):
            ledger.documented(archive, listed)
    with ledger.part("configuration"):
        listed_config = config.export_list()
        listed_config[1] = config.segment_frames
        ledger.same("constructor_list", listed_config, facts["constructor_list"])
    with ledger.part("stages"):
        _stages(network, ledger, tolerance)
    with ledger.part("inference"):
        _inference(network, ledger, tolerance)
    with ledger.part("inference, weight norm folded"):
        folded = SynthesizerNetwork(config).eval()
        folded.load_state_dict(network.state_dict())
        fold_weight_norm(folded)
        _inference(folded, ledger, tolerance)
    checkpoint = facts.get("checkpoint")
    for name in ledger.files(".pth"):
        if checkpoint is None or name != checkpoint["file"]:
            with ledger.part(name):
                _export(name, facts, network, ledger, tolerance, tolerance_half)
    if checkpoint is not None:
        with ledger.part(checkpoint["file"]):
            check_checkpoint(checkpoint, network, ledger, tolerance)
    if "posterior_train" in facts:
        with ledger.part("training forward"):
            check_training_forward(facts["posterior_train"], network, ledger, tolerance)
    if "mel" in facts:
        with ledger.part("mels"):
            check_mels(facts["mel"], ledger)
    if "losses" in facts:
        with ledger.part("losses"):
            check_losses(facts["losses"], ledger)


def config_of(values: dict[str, Any], version: str, f0: bool) -> NetworkConfig:
    """The network that a fixture's `config` describes; raises ValueError for an entry that no network has."""
    names = {
        "sr": "sample_rate",
        "n_mel_channels": "n_mels",
        "p_dropout": "dropout",
        "resblock_kernel_sizes": "resblock_kernels",
        "resblock_dilation_sizes": "resblock_dilations",
        "spk_embed_dim": "speakers",
    }
    if values.get("resblock", "1") != "1":
        raise ValueError(f"resblock {values['resblock']!r} is not known")
    given = {names.get(key, key): _frozen(value) for key, value in values.items() if key != "resblock"}
    try:
        return NetworkConfig(version=version, f0=f0, **given)
    except TypeError as error:
        raise ValueError(f"config: {error}") from error


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _optional(ledger: Ledger, key: str) -> Tensor | None:
    return ledger.tensor(STAGES, key) if key in ledger.arrays(STAGES) else None


@torch.no_grad()
def _stages(network: SynthesizerNetwork, ledger: Ledger, tolerance: Tolerance) -> None:
    f0 = _optional(ledger, "pitchf")
    g = network.speaker(ledger.tensor(STAGES, "sid"))
    lengths = ledger.tensor(STAGES, "phone_lengths")
    m, logs, mask = network.enc_p(ledger.tensor(STAGES, "phone"), _optional(ledger, "pitch"), lengths)
    # The later stages take the reference's own tensors, so that no error is carried along.
    stored = torch.from_numpy(ledger.arrays(STAGES)["x_mask"])
    reverse = network.flow(ledger.tensor(STAGES, "z_p_in") * stored, stored, g, reverse=True)
    forward = network.flow(torch.from_numpy(ledger.arrays(STAGES)["flow_reverse_z"]), stored, g)
    wave = network.dec(ledger.tensor(STAGES, "dec_z_in"), f0, g, no_noise)
    ledger.check(STAGES, "g", g, tolerance)
    ledger.check(STAGES, "enc_p_m", m, tolerance)
    ledger.check(STAGES, "enc_p_logs", logs, tolerance)
    ledger.check(STAGES, "x_mask", mask)
    ledger.check(STAGES, "flow_reverse_z", reverse, tolerance)
    ledger.check(STAGES, "flow_forward_of_reverse", forward, tolerance)
    ledger.check(STAGES, "dec_audio", wave, tolerance)
    if f0 is not None:
        ledger.check(STAGES, "source", network.dec.m_source(f0, no_noise).transpose(1, 2), tolerance)


def _inference(network: SynthesizerNetwork, ledger: Ledger, tolerance: Tolerance) -> None:
    """Complete inference without noise and with the stored one, and every partial decoding that is stored."""
    pitch, f0 = _optional(ledger, "pitch"), _optional(ledger, "pitchf")
    phone, sid = ledger.tensor(STAGES, "phone"), ledger.tensor(STAGES, "sid")
    inputs = (phone, ledger.tensor(STAGES, "phone_lengths"), pitch, f0, sid)
    audio, z, z_p = network.infer(*inputs, latent_noise=no_noise, source_noise=no_noise)
    ledger.check(STAGES, "infer_audio", audio, tolerance)
    ledger.check(STAGES, "infer_z", z, tolerance)
    ledger.check(STAGES, "infer_z_p", z_p, tolerance)
    noise = ledger.tensor(STAGES, "infer_eps")
    noisy, _, _ = network.infer(*inputs, latent_noise=lambda _: noise, source_noise=no_noise)
    ledger.check(STAGES, "infer_audio_with_eps", noisy, tolerance)
    for key in ledger.arrays(STAGES):
        if found := re.fullmatch(r"rt_audio_h(\d+)_l(\d+)_n(\d+)", key):
            head, length, stretched = map(int, found.groups())
            phone = ledger.tensor(STAGES, "rt_phone")
            part, _, _ = network.infer(
                phone,
                torch.tensor([phone.shape[1]]),
                _optional(ledger, "rt_pitch"),
                _optional(ledger, "rt_pitchf"),
                ledger.tensor(STAGES, "rt_sid"),
                latent_noise=no_noise,
                source_noise=no_noise,
                skip_head=head,
                return_length=length,
                stretched_length=stretched,
            )
            ledger.check(STAGES, key, part, tolerance)


def _export(
    name: str, facts: Facts, network: SynthesizerNetwork, ledger: Ledger, exact: Tolerance, half: Tolerance
) -> None:
    """An exported file: what it says, its tensors by name, order and value, its sound, and what we would write."""
    file = load_tensors(ledger.file(name))
    is_applio = set(file) != set(_RVC_KEYS)
    about = facts["applio_exported_dict" if is_applio else "exported_dict"].take()
    weights = file["weight"]
    ledger.same("keys", list(file), list(about))
    ledger.same("weight", f"dict of {len(weights)} tensors", about["weight"])
    for key in about.keys() - {"weight"}:
        ledger.same(key, file[key], about[key])
    ours, our_config = export_dict(network)
    ledger.same("names and order of tensors", list(weights), list(ours))
    is_half = all(value.dtype == torch.float16 for value in weights.values())
    wanted = ours if is_half else network.state_dict()
    worst = max((float((wanted[key].float() - value.float()).abs().max()) for key, value in weights.items()), default=0)
    ledger.near("tensors", np.float64(worst), np.float64(0.0))
    _inference(network_from_export(file, name), ledger, half if is_half else exact)
    if not is_applio:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / name
            write_voice(path, ours, {**our_config, "info": file["info"]})
            written = load_tensors(path)
        ledger.same("keys as we write them", list(written), list(file))
        for key in ("config", "info", "sr", "f0", "version"):
            ledger.same(f"{key} as we write it", written[key], file[key])
        if is_half:
            equal = [torch.equal(written["weight"][key], value) for key, value in weights.items()]
            ledger.same("tensors as we write them", equal, [True] * len(weights))
