"""How is the pitch contour of a source changed before it is sung? Median, notes, register, shift, one's own contour."""

from __future__ import annotations

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from libs.voice.conversion.settings import Conversion
from libs.voice.pitch import fill_unvoiced, shift

Float64 = NDArray[np.float64]

FRAMES_PER_SECOND = 100
NOTES: Float64 = np.round(440.0 * 2.0 ** ((np.arange(31, 85) - 69) / 12), 2)
"""The 54 notes from G1 (49.00 Hz) to C6 (1046.50 Hz), equal temperament on 440 Hz, to 0.01 Hz as in Applio's table."""

REGISTER_LIMIT = 12
MEDIAN_FROM = 3
MEDIAN_FRAMES = 3


def change_contour(f0: Float64, wanted: Conversion, first_second: float = 0.0) -> Float64:
    """The contour that is sung. `f0` `[T]` Hz at 100 frames/s, 0 unvoiced, as the method `wanted.f0_method` found it.

    In RVC's order: median (harvest alone), filling of unvoiced frames, notes or shift, one's own contour. Frame 0 of
    `f0` lies `first_second` before the recording's begin, where the times of `f0_points` count from.
    """
    if wanted.f0_method == "harvest" and wanted.filter_radius >= MEDIAN_FROM:
        f0 = scipy.signal.medfilt(f0, MEDIAN_FRAMES)
    if wanted.fill_unvoiced:
        f0 = fill_unvoiced(f0)
    if wanted.autotune:
        f0 = autotune(f0, wanted.autotune_strength, unvoiced=wanted.autotune_unvoiced)
    else:
        offset = register_offset(f0, wanted.proposed_pitch_hz) if wanted.proposed_pitch else 0
        # Shift and offset may add up to more than the limit of one shift.
        f0 = shift(shift(f0, wanted.pitch_shift), offset)
    return replace_by_points(f0, wanted.f0_points, first_second) if wanted.f0_points else f0


def autotune(f0: Float64, strength: float = 1.0, *, unvoiced: bool = False) -> Float64:
    """`f0 + (nearest note - f0) * strength`, nearest in Hz as in Applio. `[T]` Hz → `[T]`.

    Unvoiced frames stay 0; with `unvoiced` they move towards the lowest note, as Applio's do.
    """
    borders = (NOTES[1:] + NOTES[:-1]) / 2
    nearest = NOTES[np.searchsorted(borders, f0)]
    moved = f0 + (nearest - f0) * strength
    return np.asarray(moved if unvoiced else np.where(f0 > 0, moved, 0.0))


def register_offset(f0: Float64, target_hz: float) -> int:
    """Whole semitones, -12…12, from the median of what is voiced in `[T]` to `target_hz`; 0 without voiced frames."""
    voiced = f0[f0 > 0]
    if not len(voiced):
        return 0
    offset = round(12 * float(np.log2(target_hz / np.median(voiced))))
    return max(-REGISTER_LIMIT, min(REGISTER_LIMIT, offset))


def replace_by_points(f0: Float64, points: tuple[tuple[float, float], ...], first_second: float = 0.0) -> Float64:
    """The contour `[T]` in Hz, between the first and the last of `points` (seconds, Hz) interpolated from them.

    `first_second`: where the recording, and with it the time 0 of `points`, begins in the contour.
    """
    times, pitches = np.array(points).T
    at = np.arange(len(f0)) / FRAMES_PER_SECOND - first_second
    inside = (at >= times[0] - 1e-9) & (at <= times[-1] + 1e-9)
    return np.where(inside, np.interp(at, times, pitches), f0)
