"""Two voices are mixed as RVC mixes them, and what does not fit is refused by name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from libs.common.errors import InvalidInput, ModelFileRefused
from libs.voice.artefact import read_voice, write_voice
from libs.voice.rvc.config import NetworkConfig
from libs.voice.tools import inspect_model, merge_voices, verify_voice
from tests.unit.voice.voice_files import (
    TINY,
    applio_voice,
    exported,
    lite_voice,
    parametrised,
    rewritten,
    rvc_voice,
    tiny_network,
    training_file,
)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return rvc_voice(tmp_path / "anna.pth", tiny_network(1)), rvc_voice(tmp_path / "ben.pth", tiny_network(2))


def test_a_merged_voice_is_the_weighted_mean_in_half_precision(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge_voices(*pair, 0.3, tmp_path / "out.pth")

    a, b, merged = (read_voice(path).weights for path in (*pair, tmp_path / "out.pth"))
    for name, value in merged.items():
        assert torch.equal(value, (0.3 * a[name].float() + 0.7 * b[name].float()).half()), name
    assert verify_voice(tmp_path / "out.pth").info.training == "anna 0.3 + ben 0.7"


@pytest.mark.parametrize(("share", "which"), [(1.0, 0), (0.0, 1)])
def test_the_ends_of_the_share_are_the_voices_themselves(
    tmp_path: Path, pair: tuple[Path, Path], share: float, which: int
) -> None:
    merge_voices(*pair, share, tmp_path / "out.pth")

    merged, whole = read_voice(tmp_path / "out.pth").weights, read_voice(pair[which]).weights
    assert all(torch.equal(merged[name], whole[name]) for name in whole)


def test_the_smaller_speaker_table_decides(tmp_path: Path) -> None:
    first = rvc_voice(tmp_path / "a.pth", tiny_network(1, replace(TINY, speakers=5)))
    second = rvc_voice(tmp_path / "b.pth", tiny_network(2, replace(TINY, speakers=2)))

    merge_voices(first, second, 0.5, tmp_path / "out.pth")

    a, b, merged = (read_voice(path).weights["emb_g.weight"] for path in (first, second, tmp_path / "out.pth"))
    assert torch.equal(merged, (0.5 * a[:2].float() + 0.5 * b.float()).half())
    assert inspect_model(tmp_path / "out.pth").speakers == 2
    assert read_voice(tmp_path / "out.pth").config["config"][15] == 2


def test_voices_of_rvc_applio_and_both_weight_norms_mix(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    applio = applio_voice(tmp_path / "x.pth", tiny_network(2))
    newer = rewritten(pair[1], tmp_path / "n.pth", weight=parametrised(exported(tiny_network(2))))

    for second in (pair[1], applio, newer):
        merge_voices(pair[0], second, 0.5, tmp_path / f"out-{second.name}")

    made = {(tmp_path / f"out-{path.name}"): read_voice(tmp_path / f"out-{path.name}") for path in (applio, newer)}
    reference = read_voice(tmp_path / f"out-{pair[1].name}").weights
    for voice in made.values():
        assert list(voice.config) == ["config", "info", "sr", "f0", "version"]
        assert all(torch.equal(voice.weights[name], reference[name]) for name in reference)


def test_lite_voices_mix_in_single_precision(tmp_path: Path) -> None:
    first, second = lite_voice(tmp_path / "a.pth", 1), lite_voice(tmp_path / "b.pth", 2)

    merge_voices(first, second, 0.25, tmp_path / "out.pth")

    a, b, merged = (read_voice(path).weights for path in (first, second, tmp_path / "out.pth"))
    assert all(torch.equal(merged[name], 0.25 * a[name] + (1 - 0.25) * b[name]) for name in a)
    assert verify_voice(tmp_path / "out.pth").info.network == "lite"


def test_safetensors_keep_the_mixture_in_single_precision(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    merge_voices(*pair, 0.3, tmp_path / "out.safetensors")

    assert inspect_model(tmp_path / "out.safetensors").precision == "fp32"


def other(change: dict[str, object]) -> NetworkConfig:
    return replace(TINY, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("config", "difference"),
    [
        (other({"version": "v1"}), r"version differs \(v2 and v1\)"),
        (other({"sample_rate": 32_000, "upsample_rates": (10, 8, 2, 2)}), r"sample rate differs \(16000 and 32000\)"),
        (other({"f0": False}), r"use of pitch differs \(True and False\)"),
        (other({"filter_channels": 24}), "has the shapes"),
        (other({"n_layers": 2}), "different tensors"),
    ],
)
def test_voices_that_do_not_fit_are_refused_by_the_difference(
    tmp_path: Path, pair: tuple[Path, Path], config: NetworkConfig, difference: str
) -> None:
    second = rvc_voice(tmp_path / "other.pth", tiny_network(3, config))

    with pytest.raises(InvalidInput, match=difference) as refusal:
        merge_voices(pair[0], second, 0.5, tmp_path / "out.pth")

    assert refusal.value.field == "second"
    assert not (tmp_path / "out.pth").exists()


def test_voices_of_different_content_encoders_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    for name, path in (("hubert", pair[0]), ("small", pair[1])):
        voice = read_voice(path)
        card = {"name": name, "checksum": name, "width": 768}
        write_voice(
            tmp_path / f"{name}.safetensors", voice.weights, {"kind": "rvc", **voice.config}, content_encoder=card
        )

    with pytest.raises(InvalidInput, match="different content encoders"):
        merge_voices(tmp_path / "hubert.safetensors", tmp_path / "small.safetensors", 0.5, tmp_path / "out.pth")


def test_a_lite_voice_and_another_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(InvalidInput, match=r"network differs \(rvc and lite\)"):
        merge_voices(pair[0], lite_voice(tmp_path / "l.pth"), 0.5, tmp_path / "out.pth")


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(tmp_path: Path, pair: tuple[Path, Path], share: float) -> None:
    with pytest.raises(InvalidInput, match="from 0") as refusal:
        merge_voices(*pair, share, tmp_path / "out.pth")

    assert refusal.value.field == "share"


def test_a_training_checkpoint_is_no_voice_to_merge(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    with pytest.raises(ModelFileRefused, match="training checkpoint"):
        merge_voices(pair[0], training_file(tmp_path / "G_1.pth"), 0.5, tmp_path / "out.pth")
