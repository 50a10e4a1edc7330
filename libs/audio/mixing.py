"""How does a decoded frame become float32, and many channels one? Pure functions over PyAV's frames, without PyAV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from libs.common.errors import BrokenAudio

Wave = npt.NDArray[np.float32]

# Mono mixes weigh channels as ITU-R BS.775 does (centre 1, front 0.707, surround 0.5, no LFE), divided by the sum of
# the weights, so that no mix can pass the loudest channel.
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "FLC": 0.7071, "FRC": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_WEIGHT_OTHERS = 0.5

PLANAR_CHANNELS = 8
_DTYPES = {"u8": "u1", "s16": "<i2", "s32": "<i4", "s64": "<i8", "flt": "<f4", "dbl": "<f8"}
_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63}


def to_float(frame: Any) -> Wave:
    """A decoded frame as float32 `[channels, n]`; integer formats are scaled so that full scale is 1.

    Raises BrokenAudio for planar frames of more than 8 channels: PyAV looks for the end of a frame's list of planes
    beyond the list's end, and `to_ndarray` crashes the process from 8 on. So planes are read here one by one.
    """
    name: str = frame.format.name
    channels, samples = int(frame.layout.nb_channels), int(frame.samples)
    kind = name.removesuffix("p")
    if kind not in _DTYPES:
        raise BrokenAudio(f"Samples of the kind {name} are not supported.", field="file")
    if name.endswith("p"):
        if channels > PLANAR_CHANNELS:
            raise BrokenAudio(f"{channels} channels are too many; up to {PLANAR_CHANNELS} are decoded.", field="file")
        planes = frame.planes
        data = np.stack([np.frombuffer(planes[n], _DTYPES[kind], samples) for n in range(channels)])
    else:
        data = np.frombuffer(frame.planes[0], _DTYPES[kind], samples * channels).reshape(samples, channels).T
    with np.errstate(over="ignore", invalid="ignore"):
        wave = np.ascontiguousarray(data, dtype=np.float32)
    if kind == "u8":
        wave -= 128.0
    if kind in _SCALES:
        wave *= _SCALES[kind]
    return wave


def mono_weights(frame: Any) -> Wave:
    """Weights `[channels]`, sum 1, of the mono mix of a frame with this layout; equal ones for unknown layouts."""
    names = [channel.name for channel in frame.layout.channels]
    weights = np.array([_WEIGHTS.get(name, _WEIGHT_OTHERS) for name in names], dtype=np.float32)
    if len(names) != frame.layout.nb_channels or not weights.any():
        weights = np.ones(frame.layout.nb_channels, dtype=np.float32)
    return np.asarray(weights / weights.sum(), dtype=np.float32)
