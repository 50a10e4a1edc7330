"""When are two sounds the same? Convolutions may round the last bit otherwise in another thread."""

from __future__ import annotations

import io

import numpy as np
import soundfile
from numpy.typing import NDArray

SAME = 2
"""Steps of 16 bit by which two renderings of the same sound may differ."""


def samples(file: bytes) -> NDArray[np.int32]:
    """int32 `[T]` or `[T, channels]`: the sound in the bytes of a WAV or FLAC file, in steps of 16 bit."""
    wave, _ = soundfile.read(io.BytesIO(file), dtype="int16")
    return wave.astype(np.int32)


def apart(one: NDArray[np.int32], other: NDArray[np.int32]) -> int:
    """The largest difference of two sounds in steps of 16 bit; full scale when their lengths differ."""
    return int(np.abs(one - other).max()) if one.shape == other.shape else 2**16
