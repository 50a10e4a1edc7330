"""What a model file is told by what it holds, whatever its name and whoever wrote it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.rvc.discriminator import Discriminators
from libs.voice.rvc.shapes import config_from_shapes
from libs.voice.tools import convert_file, inspect_model
from tests.unit.voice.rvc_fixtures import FIXTURES, needs_fixtures
from tests.unit.voice.voice_files import (
    TINY,
    applio_voice,
    discriminator,
    exported,
    lite_voice,
    parametrised,
    rewritten,
    rvc_voice,
    tiny_network,
    training_file,
)


def test_a_voice_of_rvc_tells_what_it_is(tmp_path: Path) -> None:
    info = inspect_model(rvc_voice(tmp_path / "a.pth", info="20epoch"))

    assert (info.kind, info.network, info.version, info.sample_rate) == ("voice", "rvc", "v2", 16_000)
    assert (info.f0, info.speakers, info.content_width, info.precision) == (True, 4, 768, "fp16")
    assert info.training == "20epoch"
    assert info.extra_keys == ()
    assert info.parameters == sum(value.numel() for value in exported(tiny_network()).values())


def test_a_voice_of_applio_tells_its_epoch_and_its_further_keys(tmp_path: Path) -> None:
    info = inspect_model(applio_voice(tmp_path / "a.pth", epoch=20, step=400))

    assert info.training == "epoch 20, step 400"
    assert {"author", "creation_date", "embedder_model", "model_hash", "vocoder"} <= set(info.extra_keys)


def test_text_of_a_stranger_is_told_short_and_without_what_no_database_takes(tmp_path: Path) -> None:
    rvc_voice(tmp_path / "plain.pth")
    keys = {f"\0 key {number} " + "x" * 1000: 1 for number in range(1000)}
    path = rewritten(tmp_path / "plain.pth", tmp_path / "odd.pth", info="20\0epoch\ud800" + "!" * 10_000, **keys)

    info = inspect_model(path)

    assert info.training is not None
    assert info.training.startswith("20\ufffdepoch\ufffd!!!")
    assert len(info.training) == 200
    assert len(info.extra_keys) == 64
    assert all(len(key) == 100 and "\0" not in key for key in info.extra_keys)


def test_numbers_of_a_stranger_that_are_no_counts_are_not_told(tmp_path: Path) -> None:
    applio_voice(tmp_path / "plain.pth")

    info = inspect_model(rewritten(tmp_path / "plain.pth", tmp_path / "odd.pth", epoch=2**70, info=""))

    assert info.training is None


def test_a_voice_without_pitch_or_of_version_one_is_told(tmp_path: Path) -> None:
    config = replace(TINY, version="v1", f0=False, speakers=2)

    info = inspect_model(rvc_voice(tmp_path / "a.pth", tiny_network(config=config), dtype=torch.float32))

    assert (info.version, info.f0, info.content_width, info.speakers, info.precision) == ("v1", False, 256, 2, "fp32")


def test_a_training_checkpoint_and_a_base_are_told(tmp_path: Path) -> None:
    torch.save({"model": tiny_network().state_dict()}, tmp_path / "f0G16k.pth")

    info = inspect_model(training_file(tmp_path / "G_40.pth", epoch=7))
    base = inspect_model(tmp_path / "f0G16k.pth")

    assert (info.kind, info.version, info.sample_rate, info.f0, info.precision) == (
        "training",
        "v2",
        16_000,
        True,
        "fp32",
    )
    assert (info.training, base.training) == ("epoch 7", None)
    assert info.parameters > inspect_model(rvc_voice(tmp_path / "a.pth")).parameters


def test_a_training_checkpoint_of_an_unknown_size_says_what_its_tensors_tell(tmp_path: Path) -> None:
    odd = replace(TINY, version="v1", filter_channels=24)

    info = inspect_model(training_file(tmp_path / "G_1.pth", tiny_network(config=odd)))

    assert (info.kind, info.version, info.sample_rate, info.speakers) == ("training", "v1", None, 4)


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_a_discriminator_is_told_with_its_version(tmp_path: Path, version: str) -> None:
    torch.manual_seed(0)

    info = inspect_model(training_file(tmp_path / "D_40.pth", Discriminators(version, 16)))

    assert (info.kind, info.version, info.sample_rate) == ("discriminator", version, None)


def test_our_safetensors_and_lite_voices_are_told(tmp_path: Path) -> None:
    convert_file(rvc_voice(tmp_path / "a.pth"), tmp_path / "a.safetensors", "safetensors")

    ours, lite = inspect_model(tmp_path / "a.safetensors"), inspect_model(lite_voice(tmp_path / "l.pth"))

    assert (ours.kind, ours.network, ours.version, ours.training) == ("safetensors", "rvc", "v2", "20epoch")
    assert (lite.kind, lite.network, lite.version, lite.sample_rate) == ("voice", "lite", None, 24_000)


def test_a_files_name_does_not_matter(tmp_path: Path) -> None:
    convert_file(rvc_voice(tmp_path / "a.pth"), tmp_path / "a.safetensors", "safetensors")
    shutil.move(tmp_path / "a.safetensors", tmp_path / "b.pth")

    assert inspect_model(tmp_path / "b.pth").kind == "safetensors"


def test_what_was_told_is_plain_for_json(tmp_path: Path) -> None:
    import json

    told = inspect_model(applio_voice(tmp_path / "a.pth")).as_dict()

    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"model": {"feature_extractor.conv_layers.0.0.weight": torch.ones(1)}}, "HuBERT"),
        ({"unet.encoder.bn.weight": torch.ones(1)}, "RMVPE"),
        ({"modules": {}, "optimizers": {}}, "this platform's trainer"),
        ({"something": torch.ones(1)}, "none of the files"),
        ([torch.ones(1)], "none of the files"),
        ({"weight": {}, "config": []}, "no exported voice"),
        ({"weight": {"a": torch.ones(1)}}, "speaker table"),
        ({"weight": {"emb_g.weight": torch.ones(0, 8)}, "config": TINY.export_list()}, "speaker table"),
        ({"kind": "lite", "weight": {"a": torch.ones(1)}}, "no configuration"),
    ],
)
def test_other_files_are_refused_by_their_sort(tmp_path: Path, content: object, reason: str) -> None:
    torch.save(content, tmp_path / "x.pth")

    with pytest.raises(ModelFileRefused, match=reason):
        inspect_model(tmp_path / "x.pth")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        inspect_model(tmp_path / "nothing.pth")


def test_the_newer_weight_norm_is_told_like_the_older(tmp_path: Path) -> None:
    torch.save({"model": parametrised(tiny_network().state_dict())}, tmp_path / "G_1.pth")

    assert inspect_model(tmp_path / "G_1.pth").sample_rate == 16_000


@pytest.mark.parametrize("f0", [True, False])
@pytest.mark.parametrize(
    ("version", "rate"), [("v1", 32), ("v1", 40), ("v1", 48), ("v2", 24), ("v2", 32), ("v2", 40), ("v2", 48)]
)
def test_shapes_alone_tell_every_network_that_is_in_use(version: str, rate: int, f0: bool) -> None:
    from libs.voice.rvc.config import CONFIGS
    from libs.voice.rvc.shapes import APPLIO_24K
    from libs.voice.rvc.synthesizer import SynthesizerNetwork

    known = APPLIO_24K if rate == 24 else CONFIGS[f"rvc-{version}-{rate}k"]
    with torch.device("meta"):
        model = SynthesizerNetwork(replace(known, f0=f0, speakers=3)).state_dict()

    found = config_from_shapes(model)

    assert found is not None
    assert (found.version, found.sample_rate, found.f0, found.speakers) == (version, rate * 1000, f0, 3)


def test_shapes_of_a_stranger_are_not_guessed(tmp_path: Path) -> None:
    model = tiny_network().state_dict()

    assert config_from_shapes({**model, "dec.conv_pre.weight": torch.ones(1)}) is None
    assert config_from_shapes({}) is None
    assert config_from_shapes(discriminator().state_dict()) is None


@needs_fixtures
def test_the_references_own_files_are_told(tmp_path: Path) -> None:
    voice = inspect_model(FIXTURES / "rvc_v2_f0" / "model_applio_half.pth")
    training = inspect_model(FIXTURES / "rvc_v2_f0" / "G_70.pth")

    assert (voice.version, voice.sample_rate, voice.speakers, voice.training) == ("v2", 40_000, 3, "epoch 7, step 70")
    assert (training.kind, training.training, training.version) == ("training", "epoch 7", "v2")
    with pytest.raises(ModelFileRefused):
        inspect_model(FIXTURES / "hubert_fairseq" / "tiny.pt")
