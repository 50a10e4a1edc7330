"""A voice changes its form and stays what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput, ModelFileRefused
from libs.voice.artefact import read_voice
from libs.voice.tools import convert_file, verify_voice
from tests.unit.voice.voice_files import (
    applio_voice,
    exported,
    lite_voice,
    parametrised,
    rewritten,
    rvc_voice,
    tiny_network,
    training_file,
)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**31), scale=st.sampled_from([1e-30, 1e-3, 1.0, 1e20]))
def test_single_precision_comes_back_bit_for_bit_through_safetensors(
    seed: int, scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("forms")
    network = tiny_network(seed)
    weights = exported(network, torch.float32)
    weights["dec.cond.weight"] *= scale
    source = rewritten(rvc_voice(folder / "a.pth", network, dtype=torch.float32), folder / "s.pth", weight=weights)
    convert_file(source, folder / "first.pth", "fp32")

    convert_file(folder / "first.pth", folder / "there.safetensors", "safetensors")
    convert_file(folder / "there.safetensors", folder / "back.pth", "fp32")

    assert (folder / "back.pth").read_bytes() == (folder / "first.pth").read_bytes()
    before, after = read_voice(source), read_voice(folder / "back.pth")
    assert list(after.weights) == list(before.weights)
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)
    assert after.config == before.config


@pytest.mark.parametrize("make", [rvc_voice, applio_voice])
def test_half_precision_comes_back_bit_for_bit_and_rounds_once(tmp_path: Path, make: object) -> None:
    source = make(tmp_path / "a.pth")  # type: ignore[operator]

    convert_file(source, tmp_path / "wide.pth", "fp32")
    convert_file(tmp_path / "wide.pth", tmp_path / "t.safetensors", "safetensors")
    convert_file(tmp_path / "t.safetensors", tmp_path / "back.pth", "fp16")

    before, after = read_voice(source), read_voice(tmp_path / "back.pth")
    assert after.config == before.config
    assert list(after.config) == list(before.config)
    assert all(torch.equal(after.weights[name], before.weights[name]) for name in before.weights)


def test_the_newer_weight_norm_and_a_posterior_encoder_are_written_as_rvc_has_them(tmp_path: Path) -> None:
    source = rvc_voice(tmp_path / "a.pth")
    newer = parametrised({key: value.half() for key, value in tiny_network().state_dict().items()})
    convert_file(source, tmp_path / "plain.pth", "fp16")

    convert_file(rewritten(source, tmp_path / "n.pth", weight=newer), tmp_path / "b.pth", "fp16")

    assert (tmp_path / "b.pth").read_bytes() == (tmp_path / "plain.pth").read_bytes()


def test_rounding_to_half_stays_within_its_last_bit(tmp_path: Path) -> None:
    source = rvc_voice(tmp_path / "a.pth", dtype=torch.float32)

    convert_file(source, tmp_path / "half.pth", "fp16")

    before, after = read_voice(source).weights, read_voice(tmp_path / "half.pth").weights
    for name, value in before.items():
        error = (after[name].float() - value).abs()
        assert bool((error <= value.abs() * 2**-11 + 2**-25).all()), name


@pytest.mark.parametrize("form", ["fp16", "fp32", "safetensors"])
@pytest.mark.parametrize("make", [rvc_voice, applio_voice, lite_voice])
def test_every_form_of_every_voice_speaks(tmp_path: Path, make: object, form: str) -> None:
    target = tmp_path / ("b.safetensors" if form == "safetensors" else "b.pth")

    convert_file(make(tmp_path / "a.pth"), target, form)  # type: ignore[operator,arg-type]

    assert verify_voice(target).info.precision == {"safetensors": verify_voice(tmp_path / "a.pth").info.precision}.get(
        form, form
    )


def test_a_value_that_half_precision_cannot_hold_is_refused(tmp_path: Path) -> None:
    weights = exported(tiny_network(), torch.float32)
    weights["dec.cond.bias"][0] = 70_000.0
    source = rewritten(rvc_voice(tmp_path / "a.pth"), tmp_path / "big.pth", weight=weights)

    with pytest.raises(ModelFileRefused, match=r"dec\.cond\.bias holds values that fp16 cannot hold"):
        convert_file(source, tmp_path / "b.pth", "fp16")

    assert not (tmp_path / "b.pth").exists()


def test_a_name_or_a_form_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    source = rvc_voice(tmp_path / "a.pth")

    for output, form, field in (
        ("b.pth", "safetensors", "output"),
        ("b.safetensors", "fp16", "output"),
        ("b.pth", "int8", "form"),
    ):
        with pytest.raises(InvalidInput) as refusal:
            convert_file(source, tmp_path / output, form)  # type: ignore[arg-type]
        assert refusal.value.field == field


def test_only_voices_are_converted(tmp_path: Path) -> None:
    broken = exported(tiny_network())
    broken.pop("dec.conv_pre.bias")

    with pytest.raises(ModelFileRefused, match="training checkpoint"):
        convert_file(training_file(tmp_path / "G_1.pth"), tmp_path / "b.pth", "fp16")
    with pytest.raises(ModelFileRefused, match=r"lacks dec\.conv_pre\.bias"):
        convert_file(
            rewritten(rvc_voice(tmp_path / "a.pth"), tmp_path / "c.pth", weight=broken), tmp_path / "b.pth", "fp32"
        )
