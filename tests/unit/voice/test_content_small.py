"""The built-in content encoder: HuBERT's grid, any length, the same answer each time, no loudness."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from libs.common.errors import ModelFileRefused, RecordingTooShort
from libs.voice import content_small
from libs.voice.content_network import ContentConfig, level_of_speech, log_mel, mel_filters
from libs.voice.content_small import SmallContentEncoder, packaged_weights
from libs.voice.phones import PHONES, SPEECH_FROM, frame_phones
from tests.factories_audio import speech

LARGEST = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def encoder() -> SmallContentEncoder:
    return SmallContentEncoder()


@pytest.fixture(scope="module")
def said() -> NDArray[np.float32]:
    return speech(6.0, "en-us", rate=16_000)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(400, 6000))
def test_frames_are_exactly_as_many_as_huberts(encoder: SmallContentEncoder, length: int) -> None:
    wave = np.random.default_rng(length).normal(0, 0.1, length).astype(np.float32)

    features = encoder.encode(wave)

    assert features.shape == ((length - 400) // 320 + 1, 768)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_a_recording_under_one_window_is_refused(encoder: SmallContentEncoder) -> None:
    with pytest.raises(RecordingTooShort, match="at least 400"):
        encoder.encode(np.zeros(399, np.float32))


def test_the_same_wave_gives_the_same_features(encoder: SmallContentEncoder, said: NDArray[np.float32]) -> None:
    first, second = encoder.encode(said), SmallContentEncoder().encode(said)

    np.testing.assert_allclose(first, second, rtol=0, atol=1e-5)  # convolutions may round the last bit otherwise


def test_loudness_does_not_matter(encoder: SmallContentEncoder, said: NDArray[np.float32]) -> None:
    loud, quiet = encoder.encode(said), encoder.encode(said * np.float32(0.05))

    np.testing.assert_allclose(loud, quiet, atol=0.05)


def test_a_long_recording_in_chunks_is_the_recording_as_a_whole(
    encoder: SmallContentEncoder, said: NDArray[np.float32]
) -> None:
    whole = encoder.encode(said)

    in_chunks = SmallContentEncoder(chunk_frames=50).encode(said)

    np.testing.assert_allclose(in_chunks, whole, atol=1e-4)


def test_silence_is_heard_as_silence(encoder: SmallContentEncoder) -> None:
    features = encoder.encode(np.zeros(16_000, np.float32))

    assert (features.argmax(axis=1) < SPEECH_FROM).all()


def test_only_the_posteriors_are_not_zero(encoder: SmallContentEncoder, said: NDArray[np.float32]) -> None:
    features = encoder.encode(said)

    assert encoder.used_width == len(PHONES)
    assert not features[:, encoder.used_width :].any()
    np.testing.assert_allclose(features.sum(axis=1), content_small.FEATURE_SCALE, rtol=1e-4)


def test_the_encoder_hears_the_phones_that_the_judge_hears(
    encoder: SmallContentEncoder, said: NDArray[np.float32]
) -> None:
    judged = frame_phones(said)[::2]

    heard = encoder.encode(said).argmax(axis=1)

    frames = min(len(judged), len(heard))
    speech_frames = judged[:frames] >= SPEECH_FROM
    agreement = (judged[:frames] == heard[:frames])[speech_frames].mean()
    shuffled = (judged[:frames] == np.random.default_rng(0).permutation(heard[:frames]))[speech_frames].mean()
    assert agreement > 0.3
    assert agreement > 3 * shuffled


def test_the_packaged_weights_are_small_and_are_what_their_sidecar_says() -> None:
    weights = packaged_weights()
    sidecar = json.loads(weights.with_suffix(".json").read_text(encoding="utf-8"))

    checksum = hashlib.sha256(weights.read_bytes()).hexdigest()

    assert weights.stat().st_size <= LARGEST
    assert sidecar["sha256"] == checksum == SmallContentEncoder().checksum
    assert SmallContentEncoder().name == f"{sidecar['name']}-{sidecar['version']}"
    assert "CC BY 4.0" in sidecar["data"]


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x05\x00\x00\x00\x00\x00\x00\x00{}   "])
def test_a_file_that_is_no_encoder_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(content)

    with pytest.raises(ModelFileRefused, match=r"encoder\.safetensors"):
        SmallContentEncoder(path)


def test_weights_that_do_not_fit_their_description_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    about = {"name": "x", "version": 1, "config": ContentConfig().as_dict()}
    path = tmp_path / "odd.safetensors"
    save_file({"entry.weight": torch.zeros(3)}, path, metadata={"voicewright": json.dumps(about)})

    with pytest.raises(ModelFileRefused, match="does not fit"):
        SmallContentEncoder(path)


def test_each_mel_filter_passes_its_band_and_all_of_the_middle_is_covered() -> None:
    filters = mel_filters(80)

    assert (filters.sum(dim=1) > 0).all()
    assert (filters[:, 10:200].sum(dim=0) > 0).all()


def test_level_is_the_mean_of_speech_and_leaves_silence_out() -> None:
    mel = torch.full((80, 100), -3.0)
    mel[:, 50:] = -20.0

    level = level_of_speech(mel)

    torch.testing.assert_close(level, torch.full((80, 1), -3.0))


def test_log_mel_frames_lie_every_ten_milliseconds() -> None:
    wave = torch.zeros(16_000)
    wave[8_200] = 1.0

    loudest = int(log_mel(wave, mel_filters(80)).mean(dim=0).argmax())

    assert loudest == 50
