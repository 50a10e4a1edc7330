"""Is pitch found, quantised, filled and shifted as RVC does it, by every method that is installed?"""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput
from libs.voice import pitch
from libs.voice.rmvpe import RmvpeNetwork
from tests.unit.voice.fixture_files import fixture_arrays

PACKAGED = ["swift", "dio", "harvest"]
hertz = st.one_of(st.just(0.0), st.floats(50.0, 1100.0))


def glide(seconds: float = 2.0, low: float = 110.0, high: float = 260.0) -> tuple[np.ndarray, np.ndarray]:
    """A gliding voice-like tone and its true F0 per frame."""
    time = np.arange(int(seconds * 16000)) / 16000
    f0 = low * (high / low) ** (0.5 - 0.5 * np.cos(2 * np.pi * time / seconds))
    phase = 2 * np.pi * np.cumsum(f0) / 16000
    wave = 0.2 * sum(np.sin(k * phase) / k for k in range(1, 12))
    return wave.astype(np.float32), f0[::160]


@pytest.mark.parametrize("method", [*PACKAGED, "praat"])
def test_a_glide_is_followed_within_a_fifth_of_a_semitone(method: str) -> None:
    if method == "praat":
        pytest.importorskip("parselmouth", reason="the extra `praat` is not installed")
    wave, truth = glide()

    f0 = pitch.Pitch().f0(wave, method)

    inner = slice(10, 190)
    assert f0.shape == (201,)
    assert f0.dtype == np.float32
    assert np.mean(f0[inner] > 0) > 0.97
    voiced = f0[inner] > 0
    cents = 1200 * np.abs(np.log2(f0[inner][voiced] / truth[inner][voiced]))
    assert np.median(cents) < 20
    assert np.mean(cents > 50) < 0.03


@pytest.mark.parametrize("method", [*PACKAGED, "praat"])
def test_every_length_gives_one_frame_per_hop_and_one_more(method: str) -> None:
    if method == "praat":
        pytest.importorskip("parselmouth", reason="the extra `praat` is not installed")
    extractor = pitch.Pitch()

    for length in (0, 1, 159, 160, 900, 4000, 16123):
        f0 = extractor.f0(np.zeros(length, dtype=np.float32), method)
        assert f0.shape == (length // 160 + 1,)
        assert not f0.any()


def test_noise_without_a_voice_is_mostly_unvoiced() -> None:
    noise = np.random.default_rng(3).standard_normal(32000).astype(np.float32) * 0.1

    f0 = pitch.Pitch().f0(noise, "auto")

    assert np.mean(f0 > 0) < 0.1


def test_a_wave_with_nan_still_has_a_pitch() -> None:
    wave, _ = glide(1.0)
    wave[5] = np.nan

    f0 = pitch.Pitch().f0(wave, "auto")

    assert np.isfinite(f0).all()
    assert np.mean(f0 > 0) > 0.8


def test_praat_gives_the_references_pitch() -> None:
    pytest.importorskip("parselmouth", reason="the extra `praat` is not installed")
    arrays = fixture_arrays("pipeline")
    wave = (arrays["pm_wav16k"] / 32768).astype(np.float32)

    raw = pitch.praat(wave)

    both = (raw > 0) & (arrays["pm_raw_padded"] > 0)
    assert len(raw) == 168
    assert np.mean((raw > 0) == (arrays["pm_raw_padded"] > 0)) > 0.98
    np.testing.assert_allclose(raw[both], arrays["pm_raw_padded"][both], rtol=1e-3)


def test_praat_without_its_package_names_the_extra() -> None:
    program = (
        "import sys; sys.modules['parselmouth'] = None\n"
        "import numpy as np\n"
        "from libs.voice.pitch import Pitch\n"
        "print(Pitch().f0(np.zeros(8000, np.float32), 'auto').shape)\n"
        "Pitch().f0(np.zeros(8000, np.float32), 'pm')\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)

    assert done.stdout.strip() == "(51,)"
    assert "InvalidInput" in done.stderr
    assert "extra `praat`" in done.stderr


def test_auto_is_rmvpe_when_its_file_is_there_and_the_packaged_method_otherwise(tmp_path: Path) -> None:
    torch.manual_seed(1)
    torch.save(RmvpeNetwork(1, 2, 1, 4).state_dict(), tmp_path / "rmvpe.pt")

    with_file = pitch.Pitch(tmp_path / "rmvpe.pt")
    without = pitch.Pitch(tmp_path / "nothing.pt")

    assert (with_file.resolve("auto"), without.resolve("auto")) == ("rmvpe", pitch.DEFAULT_PACKAGED)
    assert with_file.f0(np.zeros(4000, dtype=np.float32)).shape == (26,)


def test_an_extractor_travels_to_a_worker_process_without_its_models() -> None:
    extractor = pitch.Pitch(threads=2, default="dio")
    wave, _ = glide(0.5)
    here = extractor.f0(wave)

    there = pickle.loads(pickle.dumps(extractor))

    assert (there.threads, there.resolve("auto")) == (2, "dio")
    np.testing.assert_array_equal(there.f0(wave), here)


def test_methods_that_cannot_be_used_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="harvest"):
        pitch.Pitch().resolve("magic")
    with pytest.raises(InvalidInput, match=r"rmvpe\.pt"):
        pitch.Pitch(tmp_path / "rmvpe.pt").resolve("rmvpe")


def test_coarse_pitch_is_the_references() -> None:
    arrays = fixture_arrays("pipeline")

    np.testing.assert_array_equal(pitch.coarse(arrays["coarse_in"]), arrays["coarse_out"])


def test_filling_and_shifting_are_the_references() -> None:
    arrays = fixture_arrays("pipeline")

    filled = pitch.fill_unvoiced(arrays["f0_with_gaps"])

    np.testing.assert_allclose(filled, arrays["f0_filled_train"], rtol=1e-6)
    np.testing.assert_array_equal(pitch.coarse(filled), arrays["f0_filled_train_coarse"])
    for key in (0, 5, -12):
        shifted = pitch.shift(filled, key)
        np.testing.assert_allclose(shifted, arrays[f"infer_key{key}_f0"], rtol=1e-6)
        np.testing.assert_array_equal(pitch.coarse(shifted), arrays[f"infer_key{key}_coarse"])


@given(st.lists(st.floats(0.0, 20000.0), max_size=50))
def test_coarse_pitch_lies_in_1_to_255_and_never_falls_when_pitch_rises(values: list[float]) -> None:
    f0 = np.sort(np.asarray(values, dtype=np.float32))

    steps = pitch.coarse(f0)

    assert steps.dtype == np.int64
    assert ((steps >= 1) & (steps <= 255)).all()
    assert (np.diff(steps) >= 0).all()


@given(st.lists(hertz, max_size=50), st.floats(-24.0, 24.0))
def test_a_shift_up_and_down_again_is_no_shift(values: list[float], semitones: float) -> None:
    f0 = np.asarray(values)

    there_and_back = pitch.shift(pitch.shift(f0, semitones), -semitones)

    np.testing.assert_allclose(there_and_back, f0, rtol=1e-12)


@settings(max_examples=50)
@given(st.lists(hertz, min_size=1, max_size=50))
def test_filling_keeps_voiced_frames_and_leaves_no_gap(values: list[float]) -> None:
    f0 = np.asarray(values)

    filled = pitch.fill_unvoiced(f0)

    np.testing.assert_array_equal(filled[f0 > 0], f0[f0 > 0])
    assert (filled > 0).all() or not f0.any()


def test_a_shift_beyond_two_octaves_is_refused() -> None:
    for semitones in (24.5, -25.0, float("nan")):
        with pytest.raises(InvalidInput, match=r"-24…24"):
            pitch.shift(np.zeros(3), semitones)
