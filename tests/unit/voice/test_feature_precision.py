"""Are features in bfloat16 near those in float32, never mixed with them, and refused where they would not be faster?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from libs.common.errors import InvalidInput
from libs.voice import preparation
from libs.voice.content import ContentEncoder, HubertEncoder, load_content_encoder, precision_of
from libs.voice.content_small import SmallContentEncoder
from libs.voice.device import multiplies_bfloat16, pick_feature_precision, precision_name
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch
from tests.unit.voice.hubert_models import small_hubert
from tests.unit.voice.test_preparation import SETTINGS, BandEncoder, recording


def encoders(name: str) -> list[ContentEncoder]:
    """The same encoder in float32 and in bfloat16, by packed products or autocast."""
    if name == "built-in":
        return [load_content_encoder(None), load_content_encoder(None, dtype=torch.bfloat16)]
    packed = name == "hubert"
    return [
        HubertEncoder(small_hubert(3), "0" * 64, dtype=dtype, packed=packed)
        for dtype in (torch.float32, torch.bfloat16)
    ]


def speech_like(seconds: float) -> NDArray[np.float32]:
    time = np.arange(int(16000 * seconds)) / 16000
    phase = 2 * np.pi * np.cumsum(140 + 40 * np.sin(2 * np.pi * 0.7 * time)) / 16000
    wave = sum(np.sin(k * phase) * (1 + np.sin(2 * np.pi * (1 + 0.3 * k) * time)) / k for k in range(1, 20))
    return np.asarray(0.1 * wave, np.float32)


@pytest.mark.parametrize("name", ["built-in", "hubert", "hubert by autocast"])
def test_features_in_bfloat16_are_near_those_in_float32(name: str) -> None:
    full, half = encoders(name)
    waves = [speech_like(2.0), speech_like(1.3)]

    exact = np.concatenate([full.encode(wave) for wave in waves])
    rounded = np.concatenate([half.encode(wave) for wave in waves])

    assert rounded.dtype == np.float32
    assert (precision_of(full), precision_of(half)) == ("fp32", "bf16")
    error = np.sqrt(np.mean((rounded - exact) ** 2))
    assert 0 < error < 0.05 * exact.std()
    cosine = (exact * rounded).sum(1) / (np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1))
    assert np.median(cosine) > 0.999


def test_precision_is_float32_unless_bfloat16_is_asked_for_and_there() -> None:
    here = torch.device("cpu")

    assert pick_feature_precision("auto", here) == pick_feature_precision("fp32", here) == torch.float32
    if multiplies_bfloat16(here):
        assert pick_feature_precision("bf16", here) == torch.bfloat16
    with pytest.raises(InvalidInput, match="use auto or fp32") as refused:
        pick_feature_precision("bf16", torch.device("meta"))
    assert refused.value.field == "precision"
    assert [precision_name(dtype) for dtype in (torch.float32, torch.bfloat16)] == ["fp32", "bf16"]


def test_a_recording_in_another_precision_is_made_again(tmp_path: Path) -> None:
    class HalfEncoder(BandEncoder):
        dtype = torch.bfloat16

    source, folders = recording(tmp_path / "a.wav", 3.0), ExperimentFolders(tmp_path / "exp", 16)

    full = preparation.prepare_recording(source, 0, folders, SETTINGS, BandEncoder(), Pitch())
    half = preparation.prepare_recording(source, 0, folders, SETTINGS, HalfEncoder(), Pitch())
    again = preparation.prepare_recording(source, 0, folders, SETTINGS, HalfEncoder(), Pitch())
    mutes = [preparation.ensure_mute(tmp_path, 32000, encoder).files()[1] for encoder in (BandEncoder(), HalfEncoder())]

    assert [result.reused for result in (full, half, again)] == [False, False, True]
    assert mutes[0] != mutes[1]


def test_the_built_in_encoder_is_in_float32_by_default() -> None:
    assert precision_of(SmallContentEncoder()) == precision_of(SmallContentEncoder(packed=False)) == "fp32"
