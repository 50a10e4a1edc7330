"""How loud is the result? The volume envelope of source and result mixed, and a peak below full scale."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from libs.voice.conversion.settings import HOP
from libs.voice.lite_loudness import over_speech
from libs.voice.slicing import frame_rms

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

OUTPUT_PEAK = 0.99
BLOCK_HOPS = 128


class _Readable(Protocol):
    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> NDArray[np.floating]: ...


def rms_curve(source: _Readable, hop: int) -> Float64:
    """RMS (1.0 is full scale) over `2 * hop` samples every `hop`, frame i centred on `i * hop`, zeros outside.

    Read in blocks. `hop` in samples, half a second of them in RVC's mix. The same numbers as
    `frame_rms(wave, 2 * hop, hop)` of the whole: float64 `[len // hop + 1]`.
    """
    length = len(source)
    power = np.zeros(length // hop + 2)  # power[j + 1]: the sum of squares of hop j
    for first in range(0, length, BLOCK_HOPS * hop):
        wave = source.read(first, min(length, first + BLOCK_HOPS * hop)).astype(np.float64)
        wave = np.pad(wave, (0, -len(wave) % hop)).reshape(-1, hop)
        at = first // hop + 1
        rows = min(len(wave), len(power) - at)
        power[at : at + rows] = np.einsum("ij,ij->i", wave, wave)[:rows]
    return np.asarray(np.sqrt((power[:-1] + power[1:]) / (2 * hop)))


class LoudnessGain:
    """What each sample of the result is multiplied by: `1 - rate` of the source's curve over the result's own."""

    def __init__(self, wanted: Float64, own: Float64, length: int, rate: float) -> None:
        """`wanted`, `own`: RMS curves `[frames]` of source and result over the same time; `length`: samples of the
        result; `rate` 0…1: 0 gives the source's loudness, 1 leaves the result its own."""
        self._wanted, self._own, self._length, self._rate = wanted, own, length, rate

    def at(self, start: int, stop: int) -> Float64:
        """Factors (not dB) of the samples `[start, stop)`, float64 `[stop - start]`."""
        wanted, own = (self._stretched(curve, start, stop) for curve in (self._wanted, self._own))
        return np.asarray(np.power(wanted, 1 - self._rate) * np.power(np.maximum(own, 1e-6), self._rate - 1))

    def _stretched(self, curve: Float64, start: int, stop: int) -> Float64:
        """Linear interpolation to `length` points, half-pixel centres, edges held."""
        position = (np.arange(start, stop) + 0.5) * (len(curve) / self._length) - 0.5
        return np.asarray(np.interp(position, np.arange(len(curve)), curve))


def mix_loudness(
    source: NDArray[np.floating], source_rate: int, result: Float32, result_rate: int, rate: float
) -> Float32:
    """The result with `1 - rate` (`rate` 0…1) of the source's loudness curve (RMS over 1 s every 0.5 s), rest its own.

    `source` `[S]` at `source_rate` Hz and `result` `[T]` at `result_rate` Hz are of the same time; gives float32 `[T]`.
    """
    length = len(result)
    if not length:
        return result
    wanted, own = (frame_rms(wave, hz // 2 * 2, hz // 2) for wave, hz in ((source, source_rate), (result, result_rate)))
    return np.asarray(result * LoudnessGain(wanted, own, length, rate).at(0, length), dtype=np.float32)


def frame_loudness(audio: Float32, frames: int) -> Float32:
    """RMS per 10 ms in dB of full scale, over 40 ms around each frame, not below -100. `[L]` at 16 kHz → `[frames]`."""
    rms = frame_rms(audio, 4 * HOP, HOP)
    decibels = 20 * np.log10(np.maximum(rms, 1e-5))
    held = np.pad(decibels, (0, max(0, frames - len(decibels))), mode="edge")
    return held[:frames].astype(np.float32)


def speech_loudness(audio: Float32, frames: int) -> Tensor:
    """`frame_loudness` in dB over the level of the speech in `audio` `[L]`, for voices that want it → `[frames]`."""
    return over_speech(torch.from_numpy(frame_loudness(audio, frames))[None])[0]


def below_full_scale(wave: Float32) -> Float32:
    """`wave` `[T]` scaled down to a peak of 0.99 if it is above; otherwise unchanged."""
    excess = float(np.abs(wave).max(initial=0.0)) / OUTPUT_PEAK
    return wave / np.float32(excess) if excess > 1 else wave
