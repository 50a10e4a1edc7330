"""Are recordings cut, numbered and levelled as RVC cuts them?"""

from __future__ import annotations

import itertools
import wave as wavfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput
from libs.voice import slicing
from tests.unit.voice.fixture_files import fixture_arrays, fixture_folder, fixture_json


def reference_input() -> np.ndarray:
    with wavfile.open(str(fixture_folder("pipeline") / "input.wav")) as file:
        data = file.readframes(file.getnframes())
    return np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768


def tone(seconds: float, rate: int = 32000, level: float = 0.3) -> np.ndarray:
    return level * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate)


def test_the_high_pass_is_the_reference_filter() -> None:
    arrays = fixture_arrays("pipeline")

    b, a = slicing.high_pass_coefficients(40000)
    filtered = slicing.high_pass(reference_input(), 40000)

    np.testing.assert_allclose(b, arrays["filter_b"], rtol=1e-12)
    np.testing.assert_allclose(a, arrays["filter_a"], rtol=1e-12)
    np.testing.assert_allclose(filtered[::97], arrays["filtered_every_97"], atol=1e-9)


def test_frame_levels_are_the_reference_slicers() -> None:
    filtered = slicing.high_pass(reference_input(), 40000)

    rms = slicing.frame_rms(filtered, 2400, 600)

    np.testing.assert_allclose(rms, fixture_arrays("pipeline")["slicer_rms"], rtol=1e-9, atol=1e-12)


def test_segments_are_the_reference_slicers_under_four_settings() -> None:
    document = fixture_json("pipeline")["slicer"]
    raw = reference_input()
    filtered = slicing.high_pass(raw, 40000)

    cases = [(document["preprocess_settings"], filtered, document["on_filtered"])]
    cases.append((document["preprocess_settings"], raw, document["on_raw"]))
    cases += [(case["settings"], filtered, case["on_filtered"]) for case in document["other_settings"]]

    for given_settings, signal, expected in cases:
        ours = slicing.SlicerSettings(
            threshold_db=given_settings["threshold"],
            min_length_ms=given_settings["min_length"],
            min_interval_ms=given_settings["min_interval"],
            hop_ms=given_settings["hop_size"],
            max_silence_kept_ms=given_settings["max_sil_kept"],
        )
        assert [list(s) for s in slicing.kept_segments(signal, 40000, ours)] == expected


def test_pieces_are_numbered_in_applios_order_without_loss() -> None:
    expected = fixture_json("pipeline")["preprocess"]["applio_automatic_writes"]["writes"]
    filtered = slicing.high_pass(reference_input(), 40000)

    ranges = [list(r) for r in slicing.piece_ranges(filtered, 40000, slicing.PieceSettings(seconds=3.0))]

    assert ranges == expected


@pytest.mark.parametrize("run", [0, 1])
def test_every_piece_equals_the_file_that_the_reference_left(run: int) -> None:
    document = fixture_json("pipeline")["preprocess"]["runs"][run]
    arrays = fixture_arrays("pipeline")
    source = reference_input()
    sources = {"0": source, "1": source[48000:80000]}
    cut = slicing.PieceSettings(seconds=document["per"], overlap_seconds=document["overlap"])
    ours = {
        (name, piece.start, piece.end): piece
        for name, wave in sources.items()
        for piece in slicing.slice_recording(wave, 40000, cut)
    }

    # The reference overwrites a piece when its numbers collide: the last one written is the one left on disk.
    ranges = {("0", number): (start, end) for number, start, end in document["a_wav_writes_in_order"]}
    ranges[("1", 1)] = (0, 32000)

    for left in document["files_left_on_disk"]:
        name, number = left["file"].removesuffix(".wav").split("_")
        piece = ours[(name, *ranges[(name, int(number))])]
        assert len(piece.wave) == left["gt_samples"]
        assert len(piece.wave16k) == left["k16_samples"]
        key = f"pre_per{document['per']}_{name}_{number}"
        np.testing.assert_allclose(piece.wave[::127], arrays[f"{key}_gt_every_127"], atol=1e-6)
        np.testing.assert_allclose(piece.wave16k[::127], arrays[f"{key}_16k_every_127"], atol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    parts=st.lists(st.tuples(st.booleans(), st.floats(0.05, 3.0)), min_size=1, max_size=8),
    rate=st.sampled_from([8000, 16000]),
)
def test_segments_never_overlap_and_stay_inside(parts: list[tuple[bool, float]], rate: int) -> None:
    signal = np.concatenate([tone(s, rate, 0.3 if loud else 0.0001) for loud, s in parts])

    segments = slicing.kept_segments(signal, rate)

    assert all(0 <= start < end <= len(signal) for start, end in segments)
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(segments))


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 500_000), seconds=st.sampled_from([2.0, 3.0, 3.7]))
def test_pieces_of_a_segment_cover_all_of_it(length: int, seconds: float) -> None:
    pieces = list(slicing.cut_segment(7, 7 + length, 16000, slicing.PieceSettings(seconds=seconds)))

    assert pieces[0][0] == 7
    assert pieces[-1][1] == 7 + length
    assert all(right[0] < left[1] for left, right in itertools.pairwise(pieces))
    assert all(end - start <= (seconds + 0.3) * 16000 + 1 for start, end in pieces)


def test_silence_and_a_wave_that_is_too_loud_give_no_piece() -> None:
    loud = tone(2.0) * 20

    assert list(slicing.slice_recording(np.zeros(64000), 32000)) == []
    assert list(slicing.slice_recording(loud, 32000)) == []
    assert list(slicing.slice_recording(np.zeros(0), 32000)) == []


def test_a_nan_sample_costs_nothing_but_itself() -> None:
    wave = tone(2.0)
    wave[1000] = np.nan

    pieces = list(slicing.slice_recording(wave, 32000))

    assert len(pieces) == 1
    assert np.isfinite(pieces[0].wave).all()


def test_slicing_stops_between_pieces_when_asked() -> None:
    calls = iter([False, True])

    pieces = list(slicing.slice_recording(tone(20.0), 32000, should_stop=lambda: next(calls)))

    assert len(pieces) == 1


def test_impossible_settings_are_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match="piece_seconds"):
        slicing.PieceSettings(seconds=0.1)
    with pytest.raises(InvalidInput, match="overlap_seconds"):
        slicing.PieceSettings(seconds=1.0, overlap_seconds=1.0)
    with pytest.raises(InvalidInput, match="min_interval_ms"):
        slicing.SlicerSettings(min_interval_ms=5)
    with pytest.raises(InvalidInput, match="max_silence_kept_ms"):
        slicing.SlicerSettings(max_silence_kept_ms=5)


def test_in_rvcs_numbering_a_full_piece_takes_the_number_of_the_remainder_before_it() -> None:
    silence = np.zeros(32000)
    wave = np.concatenate([tone(2.0), silence, tone(5.0), silence, tone(2.0)])
    settings = slicing.PieceSettings(seconds=3.0, numbering="rvc")

    numbers = [number for number, _, _ in slicing.piece_ranges(wave, 32000, settings)]
    streamed = [piece.number for piece in slicing.slice_recording(wave, 32000, settings)]

    assert numbers == streamed == [1, 1, 3, 4]
    plain = slicing.piece_ranges(wave, 32000, slicing.PieceSettings(seconds=3.0))
    assert [number for number, _, _ in plain] == [0, 1, 2, 3]


@pytest.mark.parametrize(("numbering", "number"), [("rvc", 1), ("applio", 0)])
def test_a_recording_that_is_quiet_throughout_is_numbered_in_a_stream_as_in_one(numbering: str, number: int) -> None:
    hiss = np.random.default_rng(0).uniform(-1e-3, 1e-3, 5 * 32000)
    hiss[6000:10000] *= 0.01  # its quietest place; what comes before it stays
    settings = slicing.PieceSettings(numbering=numbering)  # type: ignore[arg-type]

    ranges = list(slicing.piece_ranges(slicing.high_pass(hiss, 32000), 32000, settings))
    pieces = list(slicing.slice_recording(hiss, 32000, settings))

    assert [found[0] for found in ranges] == [piece.number for piece in pieces] == [number]


def test_an_unknown_numbering_is_refused() -> None:
    with pytest.raises(InvalidInput, match="`applio` or `rvc`") as refusal:
        slicing.PieceSettings(numbering="mine")  # type: ignore[arg-type]

    assert refusal.value.field == "numbering"
