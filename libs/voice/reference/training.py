"""Parts of `synthesizer stages` about training: forward with losses, mels, losses of given tensors, a checkpoint."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch
from torch import Tensor

from libs.voice.reference.facts import Facts
from libs.voice.reference.ledger import EXACT, Ledger, Tolerance
from libs.voice.rvc.checkpoints import read_training_checkpoint
from libs.voice.rvc.discriminator import Judgement
from libs.voice.rvc.layers import no_noise, take_segments
from libs.voice.rvc.losses import adversarial_loss, discriminator_loss, feature_loss, kl_loss, mel_loss
from libs.voice.rvc.spectral import linear_spectrogram, log_mel
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.safe_load import load_tensors

TRAIN = "posterior_train.npz"
NEW_EPSILON, NEW_FLOOR = 2e-7, 2e-6
"""The newest RVC's constants; ours are the classic ones, which every public base model was made with."""


@torch.no_grad()
def check_training_forward(facts: Facts, network: SynthesizerNetwork, ledger: Ledger, tolerance: Tolerance) -> None:
    """The forward pass of training with stored noise and slices, and its KL and mel losses."""
    c = network.config
    ledger.same("segment_frames", c.segment_frames, facts["segment_frames"])
    held = ledger.arrays(TRAIN)
    wave, noise = ledger.tensor(TRAIN, "wav"), ledger.tensor(TRAIN, "enc_q_eps")
    spec = torch.from_numpy(held["spec"])
    pitch, f0 = (ledger.tensor(TRAIN, key) if key in held else None for key in ("pitch", "pitchf"))
    lengths = ledger.tensor(TRAIN, "spec_lengths")
    out = network(
        ledger.tensor(TRAIN, "phone"),
        pitch,
        f0,
        spec,
        lengths,
        ledger.tensor(TRAIN, "sid"),
        uniform=ledger.tensor(TRAIN, "slice_uniform"),
        latent_noise=lambda _: noise,
        source_noise=no_noise,
    )
    ledger.check(TRAIN, "spec", linear_spectrogram(wave, c.filter_length, c.hop_length, NEW_EPSILON), tolerance)
    ledger.check(TRAIN, "enc_q_z", out.z, tolerance)
    ledger.check(TRAIN, "enc_q_m", out.m_q, tolerance)
    ledger.check(TRAIN, "enc_q_logs", out.logs_q, tolerance)
    ledger.check(TRAIN, "y_mask", out.mask)
    ledger.check(TRAIN, "flow_forward_z_p", out.z_p, tolerance)
    ledger.check(TRAIN, "enc_p_m", out.m_p, tolerance)
    ledger.check(TRAIN, "enc_p_logs", out.logs_p, tolerance)
    ledger.check(TRAIN, "train_ids_slice", out.starts)
    ledger.check(TRAIN, "train_y_hat", out.wave, tolerance)
    slices = take_segments(wave.unsqueeze(1), out.starts * c.hop_length, c.segment_frames * c.hop_length)
    ledger.check(TRAIN, "train_wave_slice", slices)
    scalars = facts["scalars"].take()
    ours = _train_scalars(network, held, out.wave[:, 0], slices[:, 0], out)
    for name, value in scalars.items():
        if name in ours:
            ledger.near(name, ours[name], np.float32(value), tolerance)
        else:
            ledger.fail(name, "no check knows this value")


def _train_scalars(
    network: SynthesizerNetwork, held: dict[str, Any], made: Tensor, real: Tensor, out: Any
) -> dict[str, Tensor]:
    c = network.config

    def mel_of(wave: Tensor, epsilon: float, floor: float) -> Tensor:
        spec = linear_spectrogram(wave, c.filter_length, c.hop_length, epsilon)
        return log_mel(spec, c.sample_rate, c.filter_length, c.n_mels, floor)

    def mel_again(wave: Tensor) -> Tensor:
        return log_mel(
            linear_spectrogram(wave, c.filter_length, c.hop_length), c.sample_rate, c.filter_length, c.n_mels
        )

    given = ("flow_forward_z_p", "enc_q_logs", "enc_p_m", "enc_p_logs", "y_mask")
    target = take_segments(torch.from_numpy(held["spec"]), out.starts, c.segment_frames)
    target_mel = log_mel(target, c.sample_rate, c.filter_length, c.n_mels, NEW_FLOOR)
    return {
        "kl_given_tensors": kl_loss(*(torch.from_numpy(held[key]) for key in given)),
        "train_kl": kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask),
        "train_mel_x45_upstream_new_constants": mel_loss(target_mel, mel_of(made, NEW_EPSILON, NEW_FLOOR)),
        "train_mel_x45_applio_recomputed_from_wave": mel_loss(mel_again(real), mel_again(made)),
    }


def check_mels(facts: Facts, ledger: Ledger) -> None:
    """Linear spectrogram and log-mel at each rate, with the newest and the classic constants."""
    tolerance = Tolerance.of(facts["tolerance"])
    archive = "mel.npz"
    found = re.search(r"every (\d+)th frequency bin", facts["note"])
    step = int(found[1]) if found else 1
    wave = ledger.tensor(archive, "wav")[None]
    for setting in facts["settings"]:
        rate, n_fft, hop, n_mels = (setting[key] for key in ("sr", "n_fft", "hop", "n_mels"))
        ledger.same(f"window, lowest and highest frequency {rate}", [setting["win"], setting["fmin"]], [n_fft, 0])
        if setting["fmax"] not in (None, rate / 2):
            ledger.fail(f"fmax {rate}", f"{setting['fmax']} is not known")
        new = linear_spectrogram(wave, n_fft, hop, NEW_EPSILON)
        classic = linear_spectrogram(wave, n_fft, hop)
        ledger.check(archive, f"spec_new_{rate}", new[0, ::step], tolerance)
        ledger.check(archive, f"mel_new_{rate}", log_mel(new, rate, n_fft, n_mels, NEW_FLOOR)[0], tolerance)
        ledger.check(archive, f"mel_classic_{rate}", log_mel(classic, rate, n_fft, n_mels)[0], tolerance)


def check_losses(facts: Facts, ledger: Ledger) -> None:
    """The four losses and their parts on stored scores, feature maps and latents."""
    tolerance = Tolerance.of(facts["tolerance"])
    archive = "losses.npz"

    def judgements(kind: str) -> list[Judgement]:
        found: list[Judgement] = []
        while f"d_{kind}_{len(found)}" in ledger.arrays(archive):
            i = len(found)
            maps = [key for key in ledger.arrays(archive) if key.startswith(f"f_{kind}_{i}_")]
            maps.sort(key=lambda key: int(key.rsplit("_", 1)[1]))
            found.append((ledger.tensor(archive, f"d_{kind}_{i}"), [ledger.tensor(archive, key) for key in maps]))
        return found

    real, made = judgements("real"), judgements("fake")
    ones: list[Judgement] = [(torch.ones_like(scores), []) for scores, _ in made]
    zeros: list[Judgement] = [(torch.zeros_like(scores), []) for scores, _ in real]
    latents = (ledger.tensor(archive, f"kl_{key}") for key in ("z_p", "logs_q", "m_p", "logs_p", "mask"))
    ours: dict[str, Any] = {
        "discriminator": discriminator_loss(real, made),
        "discriminator_real_parts": [discriminator_loss([r], [z]) for r, z in zip(real, zeros, strict=True)],
        "discriminator_fake_parts": [discriminator_loss([o], [m]) for o, m in zip(ones, made, strict=True)],
        "generator_adversarial": adversarial_loss(made),
        "generator_parts": [adversarial_loss([m]) for m in made],
        "feature_matching": feature_loss(real, made),
        "kl": kl_loss(*latents),
    }
    for name in facts.names():
        if name not in ("tolerance", "note"):
            ledger.near(name, np.float32(ours[name]), np.float32(facts[name]), tolerance)


def check_checkpoint(facts: Facts, network: SynthesizerNetwork, ledger: Ledger, tolerance: Tolerance) -> None:
    """A `G_*.pth`: what it says, our network's names in its order, and an optimizer state that fits by position.

    The weights are those of the recipe after one step of AdamW, whose gradients follow from the stored moments: so the
    step itself is compared.
    """
    path = ledger.file(facts["file"])
    file = load_tensors(path)
    state = read_training_checkpoint(path).model
    ledger.same("keys", list(file), facts["keys"])
    ledger.same("iteration", file["iteration"], facts["iteration"])
    ledger.near("learning_rate", file["learning_rate"], facts["learning_rate"])
    ledger.same("n_model_keys", len(state), facts["n_model_keys"])
    ledger.same("first_keys", list(state)[: len(facts["first_keys"])], facts["first_keys"])
    ledger.same("last_keys", list(state)[-len(facts["last_keys"]) :], facts["last_keys"])
    ledger.same("names and order of tensors", list(state), list(network.state_dict()))
    group = file["optimizer"]["param_groups"][0]
    ledger.near("param_group_lr", group["lr"], facts["param_group_lr"])
    moments = file["optimizer"]["state"]
    parameters = list(network.named_parameters())
    shapes = [list(moments[i]["exp_avg"].shape) for i in group["params"] if i in moments]
    ledger.same("optimizer state by position", shapes, [list(value.shape) for _, value in parameters])
    worst = 0.0
    for i, (name, before) in enumerate(parameters):
        after = _one_step(before.detach(), moments[i], group)
        worst = max(worst, float((after - state[name]).abs().max()))
    ledger.near("weights after one step of AdamW", np.float64(worst), np.float64(0.0), Tolerance(tolerance.atol))
    network_again = SynthesizerNetwork(network.config)
    network_again.load_state_dict(state)
    same = all(torch.equal(value, state[name]) for name, value in network_again.state_dict().items())
    ledger.near("tensors after loading", np.float64(not same), np.float64(0.0), EXACT)


def _one_step(weight: Tensor, moments: dict[str, Tensor], group: dict[str, Any]) -> Tensor:
    """AdamW's first step (Loshchilov & Hutter 2019) with the gradient that the first moment tells."""
    ours = torch.nn.Parameter(weight.clone())
    ours.grad = moments["exp_avg"] / (1 - group["betas"][0])
    rate = group.get("initial_lr", group["lr"])
    named = {key: group[key] for key in ("betas", "eps", "weight_decay")}
    torch.optim.AdamW([ours], lr=rate, **named).step()
    return ours.detach()
