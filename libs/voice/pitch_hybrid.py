"""What do several pitch methods say together? The median of those that hear a voice, where most of them do.

Named as in RVC's forks, `hybrid[rmvpe+crepe]`. They take the median of all values with zeros among them, so that a
method that hears nothing halves the pitch of two; here voicing is a vote of its own, and only pitches are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

AGREE_OCTAVES = 1 / 3


def combine(tracks: Sequence[Float32]) -> Float32:
    """One F0 from several, each float32 Hz `[T]` with 0 where unvoiced.

    A frame is voiced when more than half of the methods say so. Its pitch is the median, in octaves, of those that
    voice it; when an even number of them has two middle values that are more than a third of an octave apart, nothing
    lies in between, and the method named first decides which of the two is taken.
    """
    f0 = np.stack([np.asarray(track, dtype=np.float64) for track in tracks])
    voiced = f0 > 0
    counts = voiced.sum(axis=0)
    octaves = np.where(voiced, np.log2(np.where(voiced, f0, 1.0)), np.inf)
    ordered = np.sort(octaves, axis=0)
    columns = np.arange(f0.shape[1])
    lower = ordered[np.maximum(counts - 1, 0) // 2, columns]
    upper = ordered[np.minimum(counts // 2, len(tracks) - 1), columns]
    first = octaves[np.argmax(voiced, axis=0), columns]
    most = counts * 2 > len(tracks)
    lower, upper, first = (np.where(most, values, 0.0) for values in (lower, upper, first))
    nearest = np.where(np.abs(first - lower) <= np.abs(first - upper), lower, upper)
    value = np.where(upper - lower > AGREE_OCTAVES, nearest, (lower + upper) / 2)
    return np.where(most, 2.0**value, 0.0).astype(np.float32)
