"""Does a wave keep its length, pitch and level when its sample rate changes?"""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.audio.resample import Quality, StreamResampler, resample, resampled_length
from tests.factories_audio import tone

RATES = st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 40_000, 44_100, 48_000, 96_000])


@settings(deadline=None)
@given(length=st.integers(0, 20_000), low=RATES, high=RATES)
def test_resampling_up_and_down_again_keeps_the_length(length: int, low: int, high: int) -> None:
    low, high = sorted((low, high))
    wave = np.random.default_rng(length).standard_normal(length).astype(np.float32)

    there = resample(wave, low, high)
    back = resample(there, high, low)

    assert len(there) == resampled_length(length, low, high)
    assert len(back) == length


@settings(deadline=None)
@given(length=st.integers(0, 20_000), low=RATES, high=RATES)
def test_resampling_down_and_up_again_keeps_the_length_to_a_sample_of_the_lower_rate(
    length: int, low: int, high: int
) -> None:
    low, high = sorted((low, high))
    wave = np.zeros(length, np.float32)

    back = resample(resample(wave, high, low), low, high)

    assert abs(len(back) - length) <= high / low


@pytest.mark.parametrize("quality", get_args(Quality))
def test_up_and_down_again_is_the_same_wave(quality: Quality) -> None:
    wave = tone(1.0, 997.0, rate=16_000)

    back = resample(resample(wave, 16_000, 44_100, quality), 44_100, 16_000, quality)

    np.testing.assert_allclose(back[200:-200], wave[200:-200], atol=1e-3)


def test_equal_rates_give_the_wave_itself() -> None:
    wave = tone(0.1)

    assert resample(wave, 22_050, 22_050) is wave


def test_channels_stay_apart() -> None:
    left, right = tone(0.5, 300.0), np.zeros(11_025, np.float32)

    out = resample(np.stack([left, right]), 22_050, 48_000)

    assert out.shape == (2, 24_000)
    assert float(np.abs(out[1]).max()) == 0.0
    np.testing.assert_allclose(out[0], resample(left, 22_050, 48_000), atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(cuts=st.lists(st.integers(0, 5_000), max_size=12), source=RATES, target=RATES)
def test_a_stream_in_blocks_equals_the_whole(cuts: list[int], source: int, target: int) -> None:
    wave = np.random.default_rng(3).standard_normal(sum(cuts) + 1).astype(np.float32) * 0.1
    stream = StreamResampler(source, target)
    blocks = np.split(wave, np.cumsum(cuts))

    out = np.concatenate([*(stream.push(block) for block in blocks), stream.finish()])

    assert len(out) == resampled_length(len(wave), source, target)
    np.testing.assert_allclose(out, resample(wave, source, target), atol=1e-4)


def test_a_stream_of_channels_keeps_its_shape() -> None:
    stream = StreamResampler(44_100, 22_050, channels=2)

    out = np.concatenate([stream.push(np.zeros((2, 44_100), np.float32)), stream.finish()], axis=1)

    assert out.shape == (2, 22_050)


def test_what_lies_above_the_new_nyquist_is_removed() -> None:
    wave = tone(1.0, 9_000.0, rate=44_100)

    out = resample(wave, 44_100, 16_000)

    assert float(np.abs(out[500:-500]).max()) < 1e-3
