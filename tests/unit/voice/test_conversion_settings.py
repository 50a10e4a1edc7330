"""Do Applio's and RVC's further parameters do what they say, within their limits?"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.common.errors import InvalidInput
from libs.voice import chain
from libs.voice.conversion.contour import NOTES, replace_by_points
from libs.voice.conversion.formant import CONTEXT, STEP
from tests.unit.voice.conversion_parts import speech

CONTOURS = st.lists(st.one_of(st.just(0.0), st.floats(50, 1100)), min_size=1, max_size=40).map(np.array)


@settings(max_examples=40, deadline=None)
@given(f0=CONTOURS, strength=st.floats(0, 1))
def test_autotune_moves_voiced_frames_towards_their_nearest_note_and_no_others(f0: np.ndarray, strength: float) -> None:
    tuned = chain.autotune(f0, strength)

    np.testing.assert_array_equal(tuned > 0, f0 > 0)
    distance = np.abs(NOTES[None, :] - f0[:, None]).min(axis=1)
    voiced = f0 > 0
    np.testing.assert_allclose(np.abs(tuned - f0)[voiced], (strength * distance)[voiced], atol=1e-9)


def test_autotune_at_full_strength_sings_notes_and_replaces_the_shift() -> None:
    f0 = np.array([0.0, 105.0, 445.0, 1100.0])

    sung = chain.change_contour(f0, chain.Conversion(autotune=True, pitch_shift=12))
    as_applio = chain.change_contour(f0, chain.Conversion(autotune=True, autotune_unvoiced=True))

    np.testing.assert_allclose(sung, [0.0, 103.83, 440.0, 1046.50], atol=0.01)
    np.testing.assert_allclose(as_applio, [49.0, 103.83, 440.0, 1046.50], atol=0.01)


@pytest.mark.parametrize(
    ("median", "target", "expected"), [(110, 220, 12), (100, 155, 8), (100, 1000, 12), (400, 50, -12)]
)
def test_the_proposed_register_is_whole_semitones_and_at_most_an_octave(
    median: float, target: float, expected: int
) -> None:
    f0 = np.array([0.0, median * 0.9, median, median * 1.1, 0.0])

    assert chain.register_offset(f0, target) == expected
    wanted = chain.Conversion(proposed_pitch=True, proposed_pitch_hz=target, pitch_shift=2)
    np.testing.assert_allclose(chain.change_contour(f0, wanted), f0 * 2 ** ((expected + 2) / 12))
    assert chain.register_offset(np.zeros(4), target) == 0


def test_the_median_is_for_harvest_alone_and_from_radius_three_on() -> None:
    f0 = np.array([200.0, 200.0, 400.0, 200.0, 200.0])

    def sung(**given: object) -> list[float]:
        return chain.change_contour(f0, chain.Conversion(**given)).tolist()  # type: ignore[arg-type]

    assert sung(f0_method="harvest") == [200.0] * 5
    assert sung(f0_method="harvest", filter_radius=2) == f0.tolist()
    assert sung(f0_method="dio") == f0.tolist()


def test_a_contour_of_ones_own_replaces_the_pitch_between_its_ends() -> None:
    points = chain.read_f0_points("0.1,200\n\n0.3, 300\n")
    f0 = np.full(150, 110.0)

    changed = replace_by_points(f0, points, first_second=1.0)

    assert points == ((0.1, 200.0), (0.3, 300.0))
    np.testing.assert_allclose(changed[[109, 110, 120, 130, 131]], [110, 200, 250, 300, 110])
    wanted = chain.Conversion(f0_points=points, pitch_shift=12)
    np.testing.assert_allclose(chain.change_contour(f0, wanted, 1.0)[[120, 140]], [250, 220])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("0.1;200", "line 1 is not `seconds,Hz`"),
        ("0.1,200\n0.1,300", "times must grow"),
        ("nan,200", "times must grow"),
        ("0.1,-5", "0…4000"),
        ("0.1,200\nx,1", "line 2"),
    ],
)
def test_a_pitch_file_that_is_none_is_refused_with_the_line(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason) as refusal:
        chain.read_f0_points(text)

    assert refusal.value.field == "f0_points"


@pytest.mark.parametrize(
    ("field", "value", "limits"),
    [
        ("filter_radius", 8, "0…7"),
        ("autotune_strength", 1.1, "0…1"),
        ("proposed_pitch_hz", 49, "50…1200"),
        ("formant_timbre", 0, "0.1…16"),
        ("formant_quefrency", 17, "0.1…16"),
        ("formant_timbre", float("nan"), "0.1…16"),
    ],
)
def test_further_parameters_out_of_range_are_refused(field: str, value: float, limits: str) -> None:
    with pytest.raises(InvalidInput, match=limits) as refusal:
        chain.Conversion(**{field: value})  # type: ignore[arg-type]

    assert refusal.value.field == field


def vowel(f0: float = 120.0, formant: float = 1000.0) -> np.ndarray:
    """Harmonics under one resonance. float32, 1 s."""
    time = np.arange(16000) / 16000
    harmonics = np.arange(1, int(7000 / f0))
    levels = np.exp(-(((harmonics * f0 - formant) / 250) ** 2)) + 1e-3
    return (0.1 * (levels[:, None] * np.sin(2 * np.pi * f0 * harmonics[:, None] * time)).sum(axis=0)).astype(np.float32)


def peak_and_pitch(wave: np.ndarray) -> tuple[float, float]:
    spectrum = np.abs(np.fft.rfft(wave[2000:14000] * np.hanning(12000)))
    hz = np.arange(len(spectrum)) * 16000 / 12000
    lags = np.correlate(wave[4000:8000], wave[4000:8000], "full")[3999:]
    return float((spectrum**2 * hz).sum() / (spectrum**2).sum()), 16000 / (60 + int(np.argmax(lags[60:260])))


@pytest.mark.parametrize("timbre", [0.8, 1.25])
def test_formants_move_by_the_factor_and_the_pitch_stays(timbre: float) -> None:
    before, pitch = peak_and_pitch(vowel())
    after, same_pitch = peak_and_pitch(chain.shift_formants(vowel(), timbre, 2.0))

    assert after / before == pytest.approx(timbre, rel=0.08)
    assert same_pitch == pytest.approx(pitch, rel=0.02)


def test_formants_of_a_stretch_are_those_of_the_whole_and_timbre_one_is_off() -> None:
    wave = speech(3.0)
    whole = chain.shift_formants(wave, 1.2)

    start, stop = 40 * STEP, 100 * STEP
    near = chain.shift_formants(wave[start - 2 * CONTEXT : stop + 2 * CONTEXT], 1.2)

    np.testing.assert_allclose(near[2 * CONTEXT : 2 * CONTEXT + stop - start], whole[start:stop], atol=1e-6)
    assert chain.shift_formants(wave, 1.0) is wave
    assert len(whole) == len(wave)
