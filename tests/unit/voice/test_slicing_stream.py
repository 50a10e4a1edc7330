"""Is a recording that comes in blocks cut into the very pieces that it has as a whole, in memory that does not grow?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from libs.voice import slicing
from libs.voice.slicing_stream import HighPass, StreamSlicer, slice_blocks

Float = NDArray[np.floating]
RATE = 4000
parts_of_recordings = st.lists(
    st.tuples(st.sampled_from(["loud", "quiet", "silent"]), st.floats(0.01, 6.0)), min_size=1, max_size=9
)
strange_slicers = st.sampled_from(
    [
        slicing.SlicerSettings(),
        slicing.SlicerSettings(min_length_ms=300, min_interval_ms=100, hop_ms=20, max_silence_kept_ms=900),
        slicing.SlicerSettings(min_length_ms=5000, min_interval_ms=35, hop_ms=35, max_silence_kept_ms=35),
        slicing.SlicerSettings(threshold_db=-20, min_length_ms=600, min_interval_ms=600, max_silence_kept_ms=90),
    ]
)


def recording(parts: list[tuple[str, float]], seed: int) -> Float:
    draw = np.random.default_rng(seed)
    levels = {"loud": 0.3, "quiet": 0.008, "silent": 0.0}
    return np.concatenate([levels[kind] * draw.standard_normal(int(s * RATE) + 1) for kind, s in parts])


def divided(wave: Float, cuts: list[int]) -> list[Float]:
    places = sorted(cut % (len(wave) + 1) for cut in cuts)
    return np.split(wave, places)


@settings(max_examples=150, deadline=None)
@given(
    parts=parts_of_recordings,
    seed=st.integers(0, 10_000),
    cuts=st.lists(st.integers(0, 10**6), max_size=12),
    slicer=strange_slicers,
    seconds=st.sampled_from([0.5, 1.0, 3.0, 3.7]),
)
@example([("silent", 5.0)], 0, [], slicing.SlicerSettings(), 3.0)
@example([("silent", 5.0)], 0, [3, 9000, 9001], slicing.SlicerSettings(), 3.0)
@example([("silent", 6.0), ("loud", 2.0), ("silent", 6.0)], 0, [100, 14000, 30000], slicing.SlicerSettings(), 3.0)
def test_blocks_of_any_size_give_the_segments_of_the_whole(
    parts: list[tuple[str, float]], seed: int, cuts: list[int], slicer: slicing.SlicerSettings, seconds: float
) -> None:
    wave = recording(parts, seed)
    pieces = slicing.PieceSettings(seconds=seconds, overlap_seconds=0.3)
    filtered = slicing.high_pass(wave, RATE)

    high_pass, cutter = HighPass(RATE), StreamSlicer(RATE, pieces, slicer)
    found = [cut for block in divided(wave, cuts) for cut in cutter.push(high_pass.push(block))]
    found += cutter.finish()

    assert [(c.number, c.start, c.end) for c in found] == list(slicing.piece_ranges(filtered, RATE, pieces, slicer))
    for cut in found:
        np.testing.assert_array_equal(cut.samples, filtered[cut.start : cut.end])


@settings(max_examples=30, deadline=None)
@given(parts=parts_of_recordings, seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_blocks_of_any_size_give_the_same_bits(parts: list[tuple[str, float]], seed: int, cuts: list[int]) -> None:
    wave = recording(parts, seed)
    dropped: dict[str, list[int]] = {"whole": [], "blocks": []}

    whole = list(slicing.slice_recording(wave, RATE, on_drop=dropped["whole"].append))
    blocks = list(slice_blocks(divided(wave, cuts), RATE, on_drop=dropped["blocks"].append))

    assert dropped["whole"] == dropped["blocks"]
    assert [(p.number, p.start, p.end) for p in whole] == [(p.number, p.start, p.end) for p in blocks]
    for one, other in zip(whole, blocks, strict=True):
        assert one.wave.tobytes() == other.wave.tobytes()
        assert one.wave16k.tobytes() == other.wave16k.tobytes()


@pytest.mark.parametrize("kind", ["loud", "quiet", "silent", "mixed"])
def test_what_is_held_does_not_grow_with_the_recording(kind: str) -> None:
    cutter = StreamSlicer(RATE)
    most = pieces = 0
    for second in range(400):
        parts = [("loud" if second % 7 else "silent", 1.0)] if kind == "mixed" else [(kind, 1.0)]
        pieces += len(list(cutter.push(np.asarray(recording(parts, second), np.float64))))
        most = max(most, len(cutter._samples) + len(cutter._levels))
    pieces += len(list(cutter.finish()))

    assert most < 8 * RATE
    assert pieces >= {"loud": 140, "quiet": 0, "silent": 0, "mixed": 100}[kind]


def test_a_recording_of_blocks_stops_between_pieces_when_asked() -> None:
    calls = iter([False, False, True])
    blocks = ([0.3 * np.ones(RATE)] * 60).__iter__()

    found = list(slice_blocks((b * np.resize([1, -1], RATE) for b in blocks), RATE, should_stop=lambda: next(calls)))

    assert len(found) == 2
    assert sum(1 for _ in blocks) > 40
