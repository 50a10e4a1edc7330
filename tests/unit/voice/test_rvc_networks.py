"""Our networks are RVC's: the same names, shapes, order and numbers."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from libs.voice.rvc.config import CONFIGS, config_from_export
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.generator import sine_wave
from libs.voice.rvc.layers import fold_weight_norm, no_noise, take_segments
from libs.voice.rvc.losses import adversarial_loss, discriminator_loss, feature_loss, kl_loss, mel_loss
from libs.voice.rvc.spectral import linear_spectrogram, log_mel
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from tests.unit.voice.rvc_fixtures import (
    FIXTURES,
    assert_near,
    config_of,
    draw_weights,
    needs_fixtures,
    read_arrays,
    read_json,
)

SETS = ["rvc_v2_f0", "rvc_v2_nof0", "rvc_v1_f0"]


def network_of(group: str) -> SynthesizerNetwork:
    facts = read_json(f"{group}/{group}.json")
    network = SynthesizerNetwork(config_of(facts["config"], facts["version"], bool(facts["f0"]))).eval()
    draw_weights(network, facts["weight_seed"])
    return network


@needs_fixtures
@pytest.mark.parametrize("name", [p.stem for p in sorted((FIXTURES / "inventory").glob("synth_*.json"))] or ["none"])
def test_every_tensor_of_a_synthesizer_has_rvcs_name_shape_and_place(name: str) -> None:
    facts = read_json(f"inventory/{name}.json")
    _, version, rate, f0 = name.split("_")
    config = dataclasses.replace(CONFIGS[f"rvc-{version}-{rate}"], f0=f0 == "f0")

    with torch.device("meta"):
        network = SynthesizerNetwork(config)

    ours = {key: list(tensor.shape) for key, tensor in network.state_dict().items()}
    assert list(ours.items()) == list(facts["keys"].items())
    assert [name for name, _ in network.named_parameters()] == list(facts["keys"])


@needs_fixtures
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_every_tensor_of_a_discriminator_has_rvcs_name_shape_and_place(version: str) -> None:
    facts = read_json(f"inventory/disc_{version}.json")

    with torch.device("meta"):
        judges = Discriminators(version)

    assert [(k, list(v.shape)) for k, v in judges.state_dict().items()] == list(facts["keys"].items())


@needs_fixtures
@pytest.mark.parametrize("group", SETS)
@pytest.mark.parametrize("folded", [False, True])
def test_every_stage_gives_the_reference_numbers(group: str, folded: bool) -> None:
    a = read_arrays(f"{group}/stages.npz")
    network = network_of(group)
    if folded:
        fold_weight_norm(network)
    phone = a["phone"].float()
    pitch, f0, mask = a.get("pitch"), a.get("pitchf"), a["x_mask"]

    with torch.no_grad():
        g = network.speaker(a["sid"])
        m, logs, our_mask = network.enc_p(phone, pitch, a["phone_lengths"])
        reverse = network.flow(a["z_p_in"] * mask, mask, g, reverse=True)
        again = network.flow(a["flow_reverse_z"], mask, g)
        wave = network.dec(a["dec_z_in"], f0, g, no_noise)
        inputs = (phone, a["phone_lengths"], pitch, f0, a["sid"])
        audio, z, z_p = network.infer(*inputs, latent_noise=no_noise, source_noise=no_noise)
        noisy, _, _ = network.infer(*inputs, latent_noise=lambda _: a["infer_eps"], source_noise=no_noise)

    assert_near(g, a["g"])
    assert_near(m, a["enc_p_m"])
    assert_near(logs, a["enc_p_logs"])
    assert_near(our_mask, mask)
    assert_near(reverse, a["flow_reverse_z"])
    assert_near(again, a["flow_forward_of_reverse"])
    assert_near(wave, a["dec_audio"])
    assert_near(audio, a["infer_audio"])
    assert_near(z, a["infer_z"])
    assert_near(z_p, a["infer_z_p"])
    assert_near(noisy, a["infer_audio_with_eps"])
    if f0 is not None:
        assert_near(network.dec.m_source(f0, no_noise).transpose(1, 2), a["source"])


@needs_fixtures
@pytest.mark.parametrize("group", SETS)
@pytest.mark.parametrize(("head", "length", "stretched"), [(40, 16, 16), (40, 16, 18), (10, 20, 20)])
def test_the_partial_decoding_of_the_realtime_path_gives_the_reference_numbers(
    group: str, head: int, length: int, stretched: int
) -> None:
    a = read_arrays(f"{group}/stages.npz")
    phone = a["rt_phone"].float()

    audio, _, _ = network_of(group).infer(
        phone,
        torch.tensor([phone.shape[1]]),
        a.get("rt_pitch"),
        a.get("rt_pitchf"),
        a["rt_sid"],
        latent_noise=no_noise,
        source_noise=no_noise,
        skip_head=head,
        return_length=length,
        stretched_length=stretched,
    )

    assert_near(audio, a[f"rt_audio_h{head}_l{length}_n{stretched}"])


@needs_fixtures
def test_the_training_forward_and_its_losses_give_the_reference_numbers() -> None:
    facts = read_json("rvc_v2_f0/rvc_v2_f0.json")
    scalars = facts["posterior_train"]["scalars"]
    a = read_arrays("rvc_v2_f0/posterior_train.npz")
    network = network_of("rvc_v2_f0")
    c = network.config

    with torch.no_grad():
        spec = linear_spectrogram(a["wav"], c.filter_length, c.hop_length, 2e-7)
        out = network(
            a["phone"].float(),
            a["pitch"],
            a["pitchf"],
            a["spec"],
            a["spec_lengths"],
            a["sid"],
            uniform=a["slice_uniform"],
            latent_noise=lambda _: a["enc_q_eps"],
            source_noise=no_noise,
        )
        target = take_segments(a["spec"], out.starts, c.segment_frames)
        mels = {
            "new": log_mel(target, c.sample_rate, c.filter_length, c.n_mels, 2e-6),
            "made_new": log_mel(
                linear_spectrogram(out.wave[:, 0], c.filter_length, c.hop_length, 2e-7),
                c.sample_rate,
                c.filter_length,
                c.n_mels,
                2e-6,
            ),
        }

    assert_near(spec, a["spec"])
    assert out.starts.tolist() == a["train_ids_slice"].tolist()
    assert_near(out.z, a["enc_q_z"])
    assert_near(out.m_q, a["enc_q_m"])
    assert_near(out.logs_q, a["enc_q_logs"])
    assert_near(out.z_p, a["flow_forward_z_p"])
    assert_near(out.m_p, a["enc_p_m"])
    assert_near(out.wave, a["train_y_hat"])
    segments = take_segments(a["wav"].unsqueeze(1), out.starts * c.hop_length, c.segment_frames * c.hop_length)
    assert torch.equal(segments, a["train_wave_slice"])
    kl = kl_loss(out.z_p, out.logs_q, out.m_p, out.logs_p, out.mask)
    assert float(kl) == pytest.approx(scalars["train_kl"], rel=1e-4)
    assert float(mel_loss(mels["new"], mels["made_new"])) == pytest.approx(
        scalars["train_mel_x45_upstream_new_constants"], rel=1e-4
    )


@needs_fixtures
@pytest.mark.parametrize(
    ("rate", "n_fft", "hop", "n_mels"), [(32000, 1024, 320, 80), (40000, 2048, 400, 125), (48000, 2048, 480, 128)]
)
def test_spectrograms_and_mels_give_the_reference_numbers(rate: int, n_fft: int, hop: int, n_mels: int) -> None:
    a = read_arrays("rvc_v2_f0/mel.npz")
    wave = a["wav"][None]

    new = linear_spectrogram(wave, n_fft, hop, 2e-7)
    classic = linear_spectrogram(wave, n_fft, hop)

    assert_near(new[0, ::8], a[f"spec_new_{rate}"], 1e-3)
    assert_near(log_mel(new, rate, n_fft, n_mels, 2e-6)[0], a[f"mel_new_{rate}"], 1e-3, 0)
    assert_near(log_mel(classic, rate, n_fft, n_mels)[0], a[f"mel_classic_{rate}"], 1e-3, 0)


@needs_fixtures
def test_losses_give_the_reference_numbers() -> None:
    facts = read_json("rvc_v2_f0/rvc_v2_f0.json")["losses"]
    a = read_arrays("rvc_v2_f0/losses.npz")
    real = [(a[f"d_real_{i}"], [a[f"f_real_{i}_{j}"] for j in range(2)]) for i in range(3)]
    made = [(a[f"d_fake_{i}"], [a[f"f_fake_{i}_{j}"] for j in range(2)]) for i in range(3)]

    kl = kl_loss(a["kl_z_p"], a["kl_logs_q"], a["kl_m_p"], a["kl_logs_p"], a["kl_mask"])

    assert float(discriminator_loss(real, made)) == pytest.approx(facts["discriminator"], rel=1e-5)
    assert float(adversarial_loss(made)) == pytest.approx(facts["generator_adversarial"], rel=1e-5)
    assert float(feature_loss(real, made)) == pytest.approx(facts["feature_matching"], rel=1e-5)
    assert float(kl) == pytest.approx(facts["kl"], rel=1e-5)


@needs_fixtures
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_full_size_discriminators_give_the_reference_numbers(version: str) -> None:
    facts = read_json("rvc_v2_f0/fullsize.json")[f"disc_{version}"]
    a = read_arrays("rvc_v2_f0/fullsize.npz")
    judges = Discriminators(version)
    draw_weights(judges, facts["weight_seed"])

    with torch.no_grad():
        real, made = judges.pair(a["disc_y"], a["disc_y_hat"])

    for i, ((real_scores, real_maps), (made_scores, _)) in enumerate(zip(real, made, strict=True)):
        assert_near(real_scores, a[f"disc_{version}_score_real_{i}"])
        assert_near(made_scores, a[f"disc_{version}_score_fake_{i}"])
        for j, each in enumerate(real_maps):
            assert float(each.norm()) == pytest.approx(float(a[f"disc_{version}_fmap_l2_real"][i, j]), rel=1e-3)
    assert float(discriminator_loss(real, made)) == pytest.approx(facts["d_loss"], rel=1e-4)
    assert float(adversarial_loss(made)) == pytest.approx(facts["g_loss"], rel=1e-4)
    assert float(feature_loss(real, made)) == pytest.approx(facts["feature_loss"], rel=1e-4)


@needs_fixtures
def test_the_full_size_synthesizer_gives_the_reference_numbers() -> None:
    facts = read_json("rvc_v2_f0/fullsize.json")["synth"]
    a = read_arrays("rvc_v2_f0/fullsize.npz")
    network = SynthesizerNetwork(CONFIGS["rvc-v2-48k"]).eval()
    draw_weights(network, facts["weight_seed"])

    audio, z, _ = network.infer(
        a["synth_phone"].float(),
        torch.tensor([10]),
        a["synth_pitch"],
        a["synth_pitchf"],
        torch.tensor([facts["speaker"]]),
        latent_noise=no_noise,
        source_noise=no_noise,
    )

    assert_near(z, a["synth_z"])
    assert_near(audio, a["synth_audio"])


def test_a_sine_of_an_hour_keeps_its_frequency() -> None:
    frames = 100 * 3600

    wave = sine_wave(torch.full((1, frames), 437.0), 16_000, 160)[0, -16_000:]

    spectrum = torch.fft.rfft(wave * torch.hann_window(16_000)).abs()
    assert int(spectrum.argmax()) == 437
    assert float(spectrum[:430].max()) < 1e-3 * float(spectrum.max())


def test_the_exported_dimensions_make_the_same_network_again() -> None:
    for config in CONFIGS.values():
        again = config_from_export(config.export_list(), version=config.version, f0=True, speakers=config.speakers)

        expected = dataclasses.replace(config, n_mels=again.n_mels, segment_frames=32, discriminator_width=1)
        assert again == expected
