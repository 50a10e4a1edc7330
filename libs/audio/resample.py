"""How does a wave change its sample rate? With soxr, at once or in a stream of blocks."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import soxr

Wave = npt.NDArray[np.float32]
Quality = Literal["HQ", "VHQ"]


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """How many samples `samples` become: the nearest whole number, halves up."""
    return (2 * samples * to_rate + from_rate) // (2 * from_rate)


def resample(wave: Wave, from_rate: int, to_rate: int, quality: Quality = "HQ") -> Wave:
    """`wave` float32 `[T]` or `[C, T]` at `from_rate` Hz → the same at `to_rate` Hz, `resampled_length` samples long.

    Up and down again gives the old length exactly; down and up again to within one sample of the lower rate.
    Equal rates give the wave itself.
    """
    if from_rate == to_rate:
        return wave
    length = resampled_length(wave.shape[-1], from_rate, to_rate)
    if length == 0 or wave.shape[-1] == 0:
        return np.zeros((*wave.shape[:-1], length), dtype=np.float32)
    out = soxr.resample(np.ascontiguousarray(wave.T, dtype=np.float32), from_rate, to_rate, quality).T
    return _with_length(np.asarray(out, dtype=np.float32), length)


class StreamResampler:
    """Resamples block by block in bounded memory; the blocks together equal `resample` of the whole.

    `push` takes and gives `[C, n]` when `channels` was given, `[n]` otherwise; `finish` gives what the filter still
    holds.
    """

    def __init__(self, from_rate: int, to_rate: int, *, channels: int | None = None, quality: Quality = "HQ") -> None:
        self._from, self._to, self._channels = from_rate, to_rate, channels
        self._stream = None
        if from_rate != to_rate:
            self._stream = soxr.ResampleStream(from_rate, to_rate, channels or 1, dtype="float32", quality=quality)
        self._taken = 0
        self._given = 0

    def push(self, wave: Wave) -> Wave:
        """Feed one block, get what is ready (possibly nothing)."""
        self._taken += wave.shape[-1]
        return self._count(wave if self._stream is None else self._chunk(wave, last=False))

    def finish(self) -> Wave:
        """The end of the stream, cut or filled so that the total is `resampled_length`. Call it once."""
        empty = np.zeros((self._channels, 0) if self._channels else 0, dtype=np.float32)
        if self._stream is None:
            return empty
        rest = self._chunk(empty, last=True)
        missing = max(0, resampled_length(self._taken, self._from, self._to) - self._given)
        return self._count(_with_length(rest, missing))

    def _chunk(self, wave: Wave, *, last: bool) -> Wave:
        assert self._stream is not None
        out = self._stream.resample_chunk(np.ascontiguousarray(wave.T, dtype=np.float32), last=last)
        return np.asarray(out.T, dtype=np.float32)

    def _count(self, wave: Wave) -> Wave:
        self._given += wave.shape[-1]
        return wave


def _with_length(wave: Wave, length: int) -> Wave:
    missing = length - wave.shape[-1]
    if missing > 0:
        return np.concatenate([wave, np.zeros((*wave.shape[:-1], missing), dtype=np.float32)], axis=-1)
    return np.ascontiguousarray(wave[..., :length])
