"""Does the ring hold what was said last, at both rates, and does the gate close on quiet frames alone?"""

from __future__ import annotations

import numpy as np
import pytest

from libs.audio.resample import resample
from libs.voice.realtime.ring import InputRing, gate
from libs.voice.realtime.settings import Frames

FRAMES = Frames(block=10, crossfade=5, extra=30)


def tone(rate: int, seconds: float, hz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 24000, 44100, 48000, 96000])
def test_blocks_pushed_one_by_one_are_the_newest_stretch_at_both_rates(rate: int) -> None:
    ring = InputRing(rate, FRAMES)
    wave = tone(rate, 2.0)
    block = FRAMES.block * rate // 100

    for start in range(0, len(wave), block):
        ring.push(wave[start : start + block])

    np.testing.assert_array_equal(ring.wave, wave[-FRAMES.ring * rate // 100 :])
    whole = resample(wave, rate, 16000)[-FRAMES.ring * 160 :]
    # The last 10 ms are provisional: the filter has not heard what follows.
    np.testing.assert_allclose(ring.wave16k[:-160], whole[:-160], atol=2e-3)


def test_a_ring_begins_silent_and_says_so() -> None:
    ring = InputRing(16000, FRAMES)

    assert ring.is_silent()

    ring.push(tone(16000, 0.1))
    assert not ring.is_silent()
    for _ in range(2):
        ring.push(np.zeros(1600, dtype=np.float32))
    assert ring.is_silent()


def test_the_decoded_part_begins_after_the_context() -> None:
    ring = InputRing(16000, FRAMES)
    rng = np.random.default_rng(0)
    for _ in range(5):
        ring.push(rng.standard_normal(1600).astype(np.float32))

    part = ring.decoded_part()

    assert len(part) == FRAMES.decoded * 160
    np.testing.assert_array_equal(part, ring.wave[30 * 160 : (30 + 15) * 160])


def test_the_gate_zeroes_quiet_frames_and_leaves_loud_ones_as_they_are() -> None:
    hop = 160
    wave = np.random.default_rng(3).standard_normal(24 * hop).astype(np.float32) * 1e-4
    wave[12 * hop : 20 * hop] += tone(16000, 0.08)

    gated = gate(wave, hop, -40.0)

    kept = wave[2 * hop :]
    loud = slice(10 * hop, 18 * hop)
    assert len(gated) == 22 * hop
    np.testing.assert_array_equal(gated[loud], kept[loud])
    assert not gated[: 7 * hop].any()
    assert not gated[21 * hop :].any()
