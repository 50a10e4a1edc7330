"""Do blocks join without seams, and do they follow the loudness of the input?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.voice.realtime.joining import Joiner, best_offset, follow_loudness

RATE = 16000
HOP = 160


def sine(hz: float, samples: int, phase: float = 0.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(samples) / RATE + phase)).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.floats(110.0, 900.0), st.integers(0, 2**31))
def test_a_sine_whose_blocks_begin_anywhere_comes_out_as_one_sine(hz: float, seed: int) -> None:
    block, fade, search = 20 * HOP, 4 * HOP, HOP
    joiner = Joiner(block, fade, search)
    phases = np.random.default_rng(seed).uniform(0, 2 * np.pi, 6)

    out = np.concatenate([joiner.join(sine(hz, block + fade + search, phase)) for phase in phases])[block:]

    # A whole number of samples cannot meet a phase better than half a step: no jump is larger than two steps.
    step = 2 * np.pi * hz / RATE
    assert np.abs(np.diff(out)).max() <= 0.5 * 2 * step
    # And no dip: over each period the loudness is that of the sine.
    period = int(np.ceil(RATE / hz))
    power = np.convolve(out**2, np.ones(period) / period, mode="valid")
    assert power.min() > 0.125 * 0.7


def test_every_block_has_its_exact_length_and_the_tail_is_what_comes_next() -> None:
    joiner = Joiner(800, 320, 160)
    rng = np.random.default_rng(0)

    for _ in range(50):
        wave = rng.standard_normal(800 + 320 + 160).astype(np.float32)
        assert joiner.join(wave).shape == (800,)
        assert 0 <= joiner.offset <= 160
        np.testing.assert_array_equal(joiner.tail, wave[joiner.offset :][800 : 800 + 320])


def test_the_offset_is_where_the_tail_really_is() -> None:
    head = np.random.default_rng(1).standard_normal(480).astype(np.float32)

    assert [best_offset(head, head[at : at + 320]) for at in (0, 1, 77, 160)] == [0, 1, 77, 160]


def test_beside_silence_nothing_is_moved() -> None:
    noise = np.random.default_rng(2).standard_normal(480).astype(np.float32)

    assert best_offset(noise, np.zeros(320, dtype=np.float32)) == 0
    assert best_offset(np.zeros(480, dtype=np.float32), noise[:320]) == 0


def test_two_halves_of_one_fade_add_up_to_one() -> None:
    joiner = Joiner(800, 320, 160)
    ones = np.ones(1280, dtype=np.float32)

    joiner.join(ones)

    np.testing.assert_allclose(joiner.join(ones), 1.0, atol=1e-6)


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_loudness_follows_the_input_by_its_share(rate: float) -> None:
    source, wave = 0.1 * sine(200, 40 * 480), sine(300, 40 * HOP)

    mixed = follow_loudness(source, 480, wave, HOP, rate)

    ratio = np.sqrt(np.mean(mixed[800:-800] ** 2) / np.mean(wave[800:-800] ** 2))
    assert ratio == pytest.approx(0.1 ** (1 - rate), rel=0.02)


def test_silent_input_makes_the_voice_silent_when_it_is_followed() -> None:
    mixed = follow_loudness(np.zeros(20 * HOP, dtype=np.float32), HOP, sine(300, 20 * HOP), HOP, 0.9)

    assert not mixed.any()
