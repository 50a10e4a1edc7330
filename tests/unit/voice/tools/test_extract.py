"""A training checkpoint becomes the voice that RVC itself would export."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused, NotFound
from libs.voice.artefact import read_voice
from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.files import export_dict
from libs.voice.safe_load import load_tensors
from libs.voice.tools import extract_voice, inspect_model, verify_voice
from tests.unit.voice.rvc_fixtures import FIXTURES, needs_fixtures, read_json
from tests.unit.voice.voice_files import TINY, discriminator, parametrised, rvc_voice, tiny_network, training_file

ODD = replace(TINY, filter_channels=24, upsample_rates=(5, 8, 2, 2), upsample_kernel_sizes=(15, 16, 4, 4))


def config_json(path: Path, c: NetworkConfig, *, applio: bool = False) -> Path:
    """An experiment's `config.json` as RVC or Applio writes it."""
    model: dict[str, Any] = {
        "inter_channels": c.inter_channels,
        "hidden_channels": c.hidden_channels,
        "filter_channels": c.filter_channels,
        "n_heads": c.n_heads,
        "n_layers": c.n_layers,
        "kernel_size": c.kernel_size,
        "p_dropout": 0,
        "resblock": "1",
        "resblock_kernel_sizes": list(c.resblock_kernels),
        "resblock_dilation_sizes": [list(row) for row in c.resblock_dilations],
        "upsample_rates": list(c.upsample_rates),
        "upsample_initial_channel": c.upsample_initial_channel,
        "upsample_kernel_sizes": list(c.upsample_kernel_sizes),
        "use_spectral_norm": False,
        "gin_channels": c.gin_channels,
        "spk_embed_dim": 109,
    } | ({"text_enc_hidden_dim": 768} if applio else {})
    data = {
        "max_wav_value": 32768.0,
        "sample_rate" if applio else "sampling_rate": c.sample_rate,
        "filter_length": c.filter_length,
        "hop_length": c.hop_length,
        "win_length": c.filter_length,
        "n_mel_channels": c.n_mels,
        "mel_fmin": 0.0,
        "mel_fmax": None,
    }
    train = {"segment_size": c.segment_frames * c.hop_length, "learning_rate": 1e-4}
    path.write_text(json.dumps({"data": data, "model": model, "train": train}, indent=4, sort_keys=True))
    return path


def test_the_voice_is_what_rvc_exports(tmp_path: Path) -> None:
    network = tiny_network(5)
    training_file(tmp_path / "G_400.pth", network, epoch=7)

    written = extract_voice(tmp_path / "G_400.pth", tmp_path / "out.pth")

    file, (weights, keys) = load_tensors(written), export_dict(network)
    assert written == tmp_path / "out.pth"
    assert list(file) == ["weight", "config", "info", "sr", "f0", "version"]
    assert {key: value for key, value in file.items() if key != "weight"} == {
        **{key: value for key, value in keys.items() if key != "kind"},
        "info": "7epoch",
    }
    assert list(file["weight"]) == list(weights)
    assert all(torch.equal(file["weight"][name], value) for name, value in weights.items())
    assert verify_voice(written).info.speakers == 4


def test_a_folder_gets_rvcs_name_of_the_voice(tmp_path: Path) -> None:
    experiment, out = tmp_path / "anna", tmp_path / "weights"
    experiment.mkdir()
    out.mkdir()

    latest = extract_voice(training_file(experiment / "G_400.pth", epoch=7), out)
    base = extract_voice(training_file(experiment / "f0G16k.pth", epoch=7), out)

    assert latest.name == "anna_e7_s400.pth"
    assert base.name == "anna.pth"


def test_a_base_with_nothing_but_its_model_and_the_newer_weight_norm_is_extracted(tmp_path: Path) -> None:
    torch.save({"model": parametrised(tiny_network(5).state_dict())}, tmp_path / "base.pth")

    file = load_tensors(extract_voice(tmp_path / "base.pth", tmp_path / "out.pth"))

    assert file["info"] == ""
    assert verify_voice(tmp_path / "out.pth").info.sample_rate == 16_000


@pytest.mark.parametrize("applio", [False, True])
def test_the_configuration_beside_the_checkpoint_is_taken(tmp_path: Path, applio: bool) -> None:
    config_json(tmp_path / "config.json", ODD, applio=applio)

    extract_voice(training_file(tmp_path / "G_1.pth", tiny_network(1, ODD)), tmp_path / "out.pth")

    assert load_tensors(tmp_path / "out.pth")["config"] == ODD.export_list()
    assert verify_voice(tmp_path / "out.pth").info.sample_rate == 16_000


def test_a_network_that_shapes_do_not_tell_needs_its_configuration(tmp_path: Path) -> None:
    training_file(tmp_path / "G_1.pth", tiny_network(1, ODD))

    with pytest.raises(ModelFileRefused, match=r"give the experiment's config\.json") as refusal:
        extract_voice(tmp_path / "G_1.pth", tmp_path / "out.pth")
    assert refusal.value.field == "config"

    given = config_json(tmp_path / "elsewhere.json", ODD)
    assert extract_voice(tmp_path / "G_1.pth", tmp_path / "out.pth", config=given).is_file()


def test_a_configuration_of_another_network_is_refused_with_the_differences(tmp_path: Path) -> None:
    config_json(tmp_path / "config.json", ODD)

    with pytest.raises(ModelFileRefused, match=r"does not fit its configuration.*needs"):
        extract_voice(training_file(tmp_path / "G_1.pth"), tmp_path / "out.pth")

    assert not (tmp_path / "out.pth").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"data": 3, "model": 4}', "[" * 100_000, "x" * 2_000_000])
def test_a_broken_configuration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)

    with pytest.raises(ModelFileRefused, match=r"config\.json"):
        extract_voice(training_file(tmp_path / "G_1.pth"), tmp_path / "out.pth")


def test_a_missing_configuration_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        extract_voice(training_file(tmp_path / "G_1.pth"), tmp_path / "out.pth", config=tmp_path / "none.json")


def test_one_speaker_can_be_taken_out(tmp_path: Path) -> None:
    training_file(tmp_path / "G_1.pth")

    whole = read_voice(extract_voice(tmp_path / "G_1.pth", tmp_path / "all.pth"))
    one = read_voice(extract_voice(tmp_path / "G_1.pth", tmp_path / "one.pth", speaker=2))

    assert torch.equal(one.weights["emb_g.weight"], whole.weights["emb_g.weight"][2:3])
    assert (whole.config["config"][15], one.config["config"][15]) == (4, 1)
    with pytest.raises(InvalidInput, match="0 to 3") as refusal:
        extract_voice(tmp_path / "G_1.pth", tmp_path / "two.pth", speaker=4)
    assert refusal.value.field == "speaker"


def test_safetensors_keep_the_checkpoints_precision(tmp_path: Path) -> None:
    extract_voice(training_file(tmp_path / "G_1.pth"), tmp_path / "out.safetensors")

    assert inspect_model(tmp_path / "out.safetensors").precision == "fp32"


def test_what_is_no_generator_is_refused_with_what_to_give(tmp_path: Path) -> None:
    training_file(tmp_path / "D_1.pth", discriminator())
    rvc_voice(tmp_path / "voice.pth")

    with pytest.raises(ModelFileRefused, match="is a discriminator; give the G_ file"):
        extract_voice(tmp_path / "D_1.pth", tmp_path / "out.pth")
    with pytest.raises(ModelFileRefused, match="exported RVC voice"):
        extract_voice(tmp_path / "voice.pth", tmp_path / "out.pth")


def test_a_checkpoint_that_lacks_a_tensor_or_holds_no_numbers_is_refused(tmp_path: Path) -> None:
    state = tiny_network().state_dict()
    broken = {**state, "dec.conv_pre.bias": torch.full((32,), float("inf"))}
    lacking = {name: value for name, value in state.items() if name != "dec.conv_pre.bias"}
    config_json(tmp_path / "config.json", TINY)

    for number, (model, reason) in enumerate(((broken, "not finite"), (lacking, r"lacks dec\.conv_pre\.bias"))):
        torch.save({"model": model}, tmp_path / f"G_{number}.pth")
        with pytest.raises(ModelFileRefused, match=reason):
            extract_voice(tmp_path / f"G_{number}.pth", tmp_path / "out.pth")


@needs_fixtures
def test_the_references_checkpoint_becomes_a_voice_like_its_own_export(tmp_path: Path) -> None:
    about = read_json("rvc_v2_f0/rvc_v2_f0.json")
    values = about["config"]
    document = {
        "data": {"sampling_rate": values["sr"], "filter_length": values["filter_length"]},
        "model": {key: value for key, value in values.items() if key not in ("sr", "filter_length")},
        "train": {"segment_size": values["segment_frames"] * 400},
    }
    (tmp_path / "config.json").write_text(json.dumps(document))

    made = read_voice(
        extract_voice(FIXTURES / "rvc_v2_f0" / "G_70.pth", tmp_path / "x.pth", config=tmp_path / "config.json")
    )

    theirs = read_voice(FIXTURES / "rvc_v2_f0" / "model_half.pth")
    assert made.config == theirs.config == {**theirs.config, "info": "7epoch"}
    assert list(made.weights) == list(theirs.weights)
    assert {name: value.shape for name, value in made.weights.items()} == {
        name: value.shape for name, value in theirs.weights.items()
    }
