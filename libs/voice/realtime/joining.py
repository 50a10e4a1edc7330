"""How do separately rendered blocks become one sound without seams? Loudness of the input, then SOLA.

SOLA (Verhelst & Roelands 1993, "An overlap-add technique based on waveform similarity"), as RVC uses it: the new block
is moved to where it resembles the end of the last one most, then both are blended.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from libs.voice.slicing import frame_rms

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

QUIETEST_RMS = 1e-3
CORRELATION_FLOOR = 1e-8


class Joiner:
    """Joins waves of `block + fade + search` samples into blocks of `block` samples."""

    def __init__(self, block: int, fade: int, search: int) -> None:
        self.block, self.fade, self.search = block, fade, search
        self.tail: Float32 = np.zeros(fade, dtype=np.float32)
        """What would have come after the last block: the next one is faded in over it."""
        self.offset = 0
        """Samples by which the last wave was moved, 0…search."""
        # sin² and cos² of the same angle: together always 1, so that equal waves keep their loudness.
        self._rise = (np.sin(0.5 * np.pi * np.linspace(0.0, 1.0, fade)) ** 2).astype(np.float32)

    def join(self, wave: Float32) -> Float32:
        """`wave` float32 `[block + fade + search]` → the next `block` samples."""
        self.offset = best_offset(wave[: self.fade + self.search], self.tail)
        moved = wave[self.offset :].copy()
        moved[: self.fade] = moved[: self.fade] * self._rise + self.tail * (1 - self._rise)
        self.tail = moved[self.block : self.block + self.fade].copy()
        return moved[: self.block]


def best_offset(head: Float32, tail: Float32) -> int:
    """Where in `head` `[fade + search]` the stored `tail` `[fade]` fits best, 0…search; 0 when one is silent.

    The normalised cross-correlation decides: Σ head·tail / √(Σ head² + 1e-8).
    """
    windows = np.lib.stride_tricks.sliding_window_view(head.astype(np.float64), len(tail))
    likeness = windows @ tail.astype(np.float64)
    energy = np.einsum("ij,ij->i", windows, windows)
    return int(np.argmax(likeness / np.sqrt(energy + CORRELATION_FLOOR)))


def follow_loudness(source: Float32, source_hop: int, wave: Float32, hop: int, rate: float) -> Float32:
    """`wave` with `1 - rate` of the loudness curve of `source`, the rest its own (RMS over 40 ms every 10 ms).

    Both are float32 of the same number n of 10 ms frames: `[n * source_hop]` and `[n * hop]`.
    """
    if rate >= 1.0:
        return wave
    wanted, own = (
        _stretch(frame_rms(each, 4 * step, step), len(wave)) for each, step in ((source, source_hop), (wave, hop))
    )
    gain = np.power(wanted / np.maximum(own, QUIETEST_RMS), 1.0 - rate)
    return np.asarray(wave * gain, dtype=np.float32)


def _stretch(curve: Float64, length: int) -> Float64:
    """Linear interpolation to `length + 1` points with the corners kept, without the last."""
    return np.asarray(np.interp(np.arange(length) * ((len(curve) - 1) / length), np.arange(len(curve)), curve))
