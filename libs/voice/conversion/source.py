"""How is a recording made ready for conversion, and read in stretches, whether it lies in memory or in a file?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import scipy.signal
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.common.errors import InvalidInput, RecordingTooShort
from libs.voice.conversion.settings import SAMPLE_RATE
from libs.voice.slicing import HIGH_PASS_HZ, HIGH_PASS_ORDER

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

INPUT_PEAK = 0.95
SHORTEST_SECONDS = 0.1
FILTER_CONTEXT = SAMPLE_RATE
"""The high-pass forgets: after 1 s its slowest pole has decayed by 800 dB, far below the last bit of a float64."""


class Source(Protocol):
    """Mono sound at 16 kHz, ready to convert."""

    def __len__(self) -> int: ...

    def read(self, start: int, stop: int) -> Float64:
        """Samples `[start, stop)`, 0 ≤ start ≤ stop ≤ length, as float64 `[stop - start]`."""
        ...


class ArraySource:
    """A source that lies in memory."""

    def __init__(self, wave: NDArray[np.floating]) -> None:
        self.wave: Float64 = np.asarray(wave, dtype=np.float64)

    def __len__(self) -> int:
        return len(self.wave)

    def read(self, start: int, stop: int) -> Float64:
        """See `Source.read`."""
        return self.wave[start:stop]


class SampleFile:
    """Mono float32 samples in a file that grows at its end; `peak` is the largest magnitude so far.

    Read by several threads at once: pitch and content of one recording are found side by side.
    """

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("w+b", buffering=0)
        self._length = 0
        self.peak = 0.0

    def __len__(self) -> int:
        return self._length

    def append(self, wave: Float32) -> None:
        """`[n]`, -1…1 or louder. Raises OSError when the disk is full."""
        rest = memoryview(np.asarray(wave, dtype="<f4").tobytes())
        while rest:
            rest = rest[self._file.write(rest) :]
        self._length += len(wave)
        self.peak = max(self.peak, float(np.abs(wave).max(initial=0.0)))

    def read(self, start: int, stop: int) -> Float32:
        """Samples `[start, stop)` as float32 `[stop - start]`."""
        # Not seek and read: threads would move each other's place.
        return np.frombuffer(os.pread(self._file.fileno(), 4 * (stop - start), 4 * start), dtype="<f4")

    def close(self) -> None:
        """Gives the file back; nothing is read after this."""
        self._file.close()


class FileSource:
    """A source whose samples wait in a file; scaling and high-pass are done on what is read.

    Gives what `prepare_source` gives for the whole, to the last bits of a float64.
    """

    def __init__(self, samples: SampleFile) -> None:
        self._samples = samples
        excess = samples.peak / INPUT_PEAK
        self._scale = np.float32(excess) if excess > 1 else np.float32(1.0)

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, start: int, stop: int) -> Float64:
        """See `Source.read`."""
        begin, end = max(0, start - FILTER_CONTEXT), min(len(self), stop + FILTER_CONTEXT)
        return high_pass(self._samples.read(begin, end) / self._scale)[start - begin : stop - begin]


class Padded:
    """A source with `pad` mirrored samples on each side (`numpy.pad` in its mode `reflect`), read in stretches."""

    def __init__(self, source: Source, pad: int) -> None:
        self.source, self.pad = source, pad

    def __len__(self) -> int:
        return len(self.source) + 2 * self.pad

    def read(self, start: int, stop: int) -> Float64:
        """Float64 `[stop - start]`; sample `pad` is the first of the source. `stop` may lie beyond the end."""
        begin, end, length = start - self.pad, stop - self.pad, len(self.source)
        if begin >= 0 and end <= length:
            return self.source.read(begin, end)
        if length < 2:
            return np.repeat(self.source.read(0, length), max(0, stop - start))
        period = 2 * (length - 1)
        at = np.arange(begin, end) % period
        at = np.where(at >= length, period - at, at)
        first = int(at.min(initial=0) if not len(at) else at.min())
        return self.source.read(first, int(at.max(initial=0)) + 1)[at - first]


def check_recording(samples: int, sample_rate: int) -> None:
    """Raises RecordingTooShort below 0.1 s."""
    if samples < SHORTEST_SECONDS * sample_rate:
        raise RecordingTooShort(
            f"{samples / sample_rate:.2f} s given, {SHORTEST_SECONDS:g} s needed.", field="recording"
        )


def sixteen_kilohertz(wave: NDArray[np.floating], sample_rate: int) -> Float32:
    """Mono `[T]` at any rate → float32 at 16 kHz. Samples that are not finite count as 0.

    Raises RecordingTooShort below 0.1 s, InvalidInput for several channels.
    """
    if wave.ndim != 1:
        raise InvalidInput(f"One channel is expected and the wave has shape {list(wave.shape)}.", field="recording")
    check_recording(len(wave), sample_rate)
    clean = np.nan_to_num(np.asarray(wave, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return resample(clean, sample_rate, SAMPLE_RATE)


def ready(low: Float32) -> Float64:
    """Sound at 16 kHz `[T]` → float64 `[T]` with a peak of at most 0.95 and without what is below 48 Hz."""
    excess = float(np.abs(low).max(initial=0.0)) / INPUT_PEAK
    return high_pass(low / np.float32(excess) if excess > 1 else low)


def prepare_source(wave: NDArray[np.floating], sample_rate: int) -> Float64:
    """Mono `[T]` at any rate → float64 `[T']` at 16 kHz, peak at most 0.95, without what is below 48 Hz (zero phase).

    Samples that are not finite count as 0. Raises RecordingTooShort below 0.1 s, InvalidInput for several channels.
    """
    return ready(sixteen_kilohertz(wave, sample_rate))


def high_pass(low: Float32) -> Float64:
    """RVC's high-pass: Butterworth of order 5 at 48 Hz, forwards and backwards. `[T]` at 16 kHz → float64 `[T]`."""
    b, a = scipy.signal.butter(HIGH_PASS_ORDER, HIGH_PASS_HZ, btype="high", fs=SAMPLE_RATE)
    return np.asarray(scipy.signal.filtfilt(b, a, low), dtype=np.float64)
