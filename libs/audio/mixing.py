"""How does a decoded frame become float32, and many channels one? Pure functions over PyAV's frames, without PyAV."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]

# Mono mixes weigh channels as ITU-R BS.775 does (centre 1, front 0.707, surround 0.5, no LFE), divided by the sum of
# the weights, so that no mix can pass the loudest channel.
_WEIGHTS = {"FC": 1.0, "FL": 0.7071, "FR": 0.7071, "FLC": 0.7071, "FRC": 0.7071, "LFE": 0.0, "LFE2": 0.0}
_WEIGHT_OTHERS = 0.5

_SCALES = {"u8": 2.0**-7, "s16": 2.0**-15, "s32": 2.0**-31, "s64": 2.0**-63}


def to_float(frame: Any) -> Wave:
    """A decoded frame as float32 `[channels, n]`; integer formats are scaled so that full scale is 1."""
    name: str = frame.format.name
    data = frame.to_ndarray()
    kind = name.removesuffix("p")
    if not name.endswith("p"):
        data = data.reshape(-1, frame.layout.nb_channels).T
    if kind == "flt":
        return np.ascontiguousarray(data, dtype=np.float32)
    if kind == "dbl":
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(data, dtype=np.float32)
    samples = np.ascontiguousarray(data, dtype=np.float32)
    if kind == "u8":
        samples -= 128.0
    samples *= _SCALES[kind]
    return samples


def mono_weights(frame: Any) -> Wave:
    """Weights `[channels]`, sum 1, of the mono mix of a frame with this layout; equal ones for unknown layouts."""
    names = [channel.name for channel in frame.layout.channels]
    weights = np.array([_WEIGHTS.get(name, _WEIGHT_OTHERS) for name in names], dtype=np.float32)
    if len(names) != frame.layout.nb_channels or not weights.any():
        weights = np.ones(frame.layout.nb_channels, dtype=np.float32)
    return np.asarray(weights / weights.sum(), dtype=np.float32)
