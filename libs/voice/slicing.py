"""How does one recording become training pieces? RVC's high-pass, slicer, cutting, numbering and level rule."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.signal
import soxr
from numpy.typing import NDArray

from libs.common.errors import InvalidInput

Float = NDArray[np.floating]
Float64 = NDArray[np.float64]
Float32 = NDArray[np.float32]
Numbering = Literal["applio", "rvc"]
"""How pieces are counted. `applio`: 0, 1, 2 … `rvc`: the last piece of a segment skips a number and the next segment
begins with the same, so that a full piece is written over it: sound is lost, as there."""

HIGH_PASS_HZ = 48.0
HIGH_PASS_ORDER = 5
PEAK_TARGET = 0.9 * 0.75
KEEP_SHARE = 0.25
DROP_ABOVE = 2.5
OVERLAP_SECONDS = 0.3


@dataclass(frozen=True)
class SlicerSettings:
    """When a recording is cut at silence. Defaults are RVC's (milliseconds, threshold in dB of full scale)."""

    threshold_db: float = -42.0
    min_length_ms: float = 1500.0
    min_interval_ms: float = 400.0
    hop_ms: float = 15.0
    max_silence_kept_ms: float = 500.0

    def __post_init__(self) -> None:
        if not self.min_length_ms >= self.min_interval_ms >= self.hop_ms > 0:
            raise InvalidInput(
                f"slicer: min_length_ms ({self.min_length_ms:g}) ≥ min_interval_ms ({self.min_interval_ms:g}) ≥ "
                f"hop_ms ({self.hop_ms:g}) > 0 must hold; raise the first or lower the last.",
                field="slicer",
            )
        if self.max_silence_kept_ms < self.hop_ms:
            raise InvalidInput(
                f"slicer: max_silence_kept_ms is {self.max_silence_kept_ms:g} and must be at least hop_ms "
                f"({self.hop_ms:g}).",
                field="slicer",
            )


@dataclass(frozen=True)
class PieceSettings:
    """How kept segments are cut: `seconds` is the length of a full piece, neighbours share `overlap_seconds`."""

    seconds: float = 3.0
    overlap_seconds: float = OVERLAP_SECONDS
    numbering: Numbering = "applio"

    def __post_init__(self) -> None:
        if self.numbering not in ("applio", "rvc"):
            raise InvalidInput(f"numbering is {self.numbering!r}; it is `applio` or `rvc`.", field="numbering")
        if not 0.5 <= self.seconds <= 30:
            raise InvalidInput(f"piece_seconds is {self.seconds:g}; it must lie in 0.5…30.", field="piece_seconds")
        if not 0 <= self.overlap_seconds < self.seconds:
            raise InvalidInput(
                f"overlap_seconds is {self.overlap_seconds:g}; it must lie in 0…{self.seconds:g}, below piece_seconds.",
                field="overlap_seconds",
            )


@dataclass(frozen=True)
class Piece:
    """One training piece: `number` counts written order, `[start, end)` are samples of the filtered recording.

    `wave`: float32 `[end - start]` at the model rate; `wave16k`: float32 at 16 kHz; both level-normalised.
    """

    number: int
    start: int
    end: int
    wave: Float32
    wave16k: Float32


def high_pass_coefficients(sample_rate: int) -> tuple[Float64, Float64]:
    """Numerator and denominator, `[6]` each, of the Butterworth high-pass (order 5, 48 Hz) at `sample_rate` Hz."""
    b, a = scipy.signal.butter(HIGH_PASS_ORDER, HIGH_PASS_HZ, btype="high", fs=sample_rate)
    return np.asarray(b), np.asarray(a)


def high_pass(wave: Float, sample_rate: int) -> Float64:
    """The causal single-pass high-pass of RVC's preprocessing. `wave` `[T]` at `sample_rate` Hz → float64 `[T]`."""
    b, a = high_pass_coefficients(sample_rate)
    return np.asarray(scipy.signal.lfilter(b, a, wave), dtype=np.float64)


@dataclass(frozen=True)
class SlicerFrames:
    """SlicerSettings at one sample rate: `hop`, `window`, `half` in samples, the rest in frames of `hop`."""

    hop: int
    window: int
    half: int
    min_length: int
    min_interval: int
    max_silence: int
    threshold: float

    @property
    def long_run(self) -> int:
        """A run of silence that is longer than this is taken out, wherever it ends."""
        return max(self.min_length, self.min_interval, 2 * self.max_silence)

    def count(self, samples: int) -> int:
        """Frames of a whole recording: `1 + T' // hop`, T' being what zero-padding on both sides leaves for windows."""
        padded = samples + 2 * self.half
        return 1 + (padded - self.window) // self.hop if padded >= self.window else 0


def slicer_frames(sample_rate: int, settings: SlicerSettings) -> SlicerFrames:
    """The reference's rounding of the settings to samples and frames at `sample_rate` Hz."""
    hop = round(sample_rate * settings.hop_ms / 1000)
    interval = sample_rate * settings.min_interval_ms / 1000
    window = min(round(interval), 4 * hop)
    return SlicerFrames(
        hop=hop,
        window=window,
        half=window // 2,
        min_length=round(sample_rate * settings.min_length_ms / 1000 / hop),
        min_interval=round(interval / hop),
        max_silence=round(sample_rate * settings.max_silence_kept_ms / 1000 / hop),
        threshold=10 ** (settings.threshold_db / 20),
    )


def frame_rms(wave: Float, window: int, hop: int) -> Float64:
    """RMS of `window` samples, frame `i` centred on sample `i * hop` with zeros outside → float64 `[frames]`."""
    frames = SlicerFrames(hop, window, window // 2, 0, 0, 0, 0.0)
    return frame_rms_between(wave, 0, frames, 0, frames.count(len(wave)))


def frame_rms_between(samples: Float, base: int, frames: SlicerFrames, first: int, last: int) -> Float64:
    """RMS `[last - first]` of these frames of a recording of which `samples` is the part from sample `base` on.

    What lies outside of `samples` counts as zero. Worked through in blocks, so that a long recording needs no copy of
    `window / hop` times its size; a frame's bits do not depend on the block that it is in.
    """
    rms = np.empty(last - first, dtype=np.float64)
    block = 4096
    for begin_frame in range(first, last, block):
        end_frame = min(last, begin_frame + block)
        begin = begin_frame * frames.hop - frames.half
        end = (end_frame - 1) * frames.hop + frames.window - frames.half
        part = np.zeros(end - begin, dtype=samples.dtype if samples.dtype.kind == "f" else np.float64)
        inside_from, inside_to = max(base, begin), min(base + len(samples), end)
        part[inside_from - begin : inside_to - begin] = samples[inside_from - base : inside_to - base]
        windows = np.lib.stride_tricks.sliding_window_view(part, frames.window)[:: frames.hop]
        rms[begin_frame - first : end_frame - first] = np.sqrt(np.mean(np.abs(windows) ** 2, axis=-1))
    return rms


def kept_segments(wave: Float, sample_rate: int, settings: SlicerSettings | None = None) -> list[tuple[int, int]]:
    """Sample ranges `[start, end)` between the silences that RVC's slicer removes (openvpi's audio slicer, 2022).

    `wave`: `[T]` at `sample_rate` Hz. A wave that is silent throughout, or has no removable silence, is handled as
    there: silence in the middle shorter than the limits stays, the ends lose what exceeds `max_silence_kept_ms`.
    """
    frames = slicer_frames(sample_rate, settings or SlicerSettings())
    total = len(wave)
    # The reference compares a sample count with a frame count here; kept, because files must cut alike.
    if total <= frames.min_length:
        return [(0, total)] if total else []
    rms = frame_rms(wave, frames.window, frames.hop)
    removed = _removed_frames(rms, frames.threshold, frames.min_length, frames.min_interval, frames.max_silence)
    if not removed:
        return [(0, total)]
    segments = []
    if removed[0][0] > 0:
        segments.append((0, removed[0][0]))
    segments += [(left[1], right[0]) for left, right in itertools.pairwise(removed)]
    if removed[-1][1] < len(rms):
        segments.append((removed[-1][1], len(rms)))
    hop = frames.hop
    return [(begin * hop, min(total, end * hop)) for begin, end in segments if begin * hop < min(total, end * hop)]


def _removed_frames(
    rms: Float64, threshold: float, min_length: int, min_interval: int, max_silence: int
) -> list[tuple[int, int]]:
    """The frame ranges to take out, in order. A range `(p, p)` is a cut with nothing removed."""

    def quietest(first: int, last: int) -> int:
        return first + int(np.argmin(rms[first : last + 1]))

    removed: list[tuple[int, int]] = []
    clip_start = 0
    silence_start: int | None = None
    frames = len(rms)
    is_silent = rms < threshold
    # Only the edges of silent runs decide anything.
    edges = np.flatnonzero(np.diff(np.concatenate(([False], is_silent, [False])).astype(np.int8)))
    for begin, end in edges.reshape(-1, 2).tolist():
        silence_start = begin
        if end >= frames:
            break
        leading = begin == 0 and end > max_silence
        middle = end - begin >= min_interval and end - clip_start >= min_length
        silence_start = None
        if not leading and not middle:
            continue
        if end - begin <= max_silence:
            cut = quietest(begin, end)
            removed.append((0 if begin == 0 else cut, cut))
            clip_start = cut
            continue
        left = quietest(begin, begin + max_silence)
        right = quietest(end - max_silence, end)
        if end - begin <= 2 * max_silence:
            cut = quietest(end - max_silence, begin + max_silence)
            if begin == 0:
                removed.append((0, right))
                clip_start = right
            else:
                removed.append((min(left, cut), max(right, cut)))
                clip_start = max(right, cut)
        else:
            removed.append((0 if begin == 0 else left, right))
            clip_start = right
    if silence_start is not None and frames - silence_start >= min_interval:
        cut = quietest(silence_start, min(frames, silence_start + max_silence))
        removed.append((cut, frames + 1))
    return removed


def cut_segment(start: int, end: int, sample_rate: int, settings: PieceSettings) -> Iterator[tuple[int, int]]:
    """Cuts one kept segment into pieces `[start, end)` in samples; the last may be short and is never dropped here."""
    length = end - start
    tail = (settings.seconds + settings.overlap_seconds) * sample_rate
    number = 0
    while True:
        offset = int(sample_rate * (settings.seconds - settings.overlap_seconds) * number)
        if length - offset > tail:
            yield start + offset, start + offset + int(settings.seconds * sample_rate)
            number += 1
        else:
            yield start + offset, end
            return


def piece_ranges(
    filtered: Float,
    sample_rate: int,
    pieces: PieceSettings | None = None,
    slicer: SlicerSettings | None = None,
) -> Iterator[tuple[int, int, int]]:
    """`(number, start, end)` of every piece of `filtered` `[T]` in the order of writing.

    `start` and `end` are samples; only RVC's numbering uses a number twice.
    """
    pieces = pieces or PieceSettings()
    number = 0
    for start, end in kept_segments(filtered, sample_rate, slicer):
        for begin, finish in cut_segment(start, end, sample_rate, pieces):
            is_last = finish == end
            if pieces.numbering == "rvc" and is_last:
                number += 1
            yield number, begin, finish
            if pieces.numbering == "applio" or not is_last:
                number += 1


def level(piece: Float) -> Float64 | None:
    """RVC's level rule: three quarters of the way to a peak of 0.675 in amplitude → float64 `[T]`.

    None when the piece must be dropped: its peak is above 2.5, zero, or not finite.
    """
    wave = np.asarray(piece, dtype=np.float64)
    peak = float(np.abs(wave).max()) if wave.size else 0.0
    if not np.isfinite(peak) or peak == 0.0 or peak > DROP_ABOVE:
        return None
    return wave / peak * PEAK_TARGET + KEEP_SHARE * wave


def to_16k(wave: Float, sample_rate: int) -> Float32:
    """`[T]` → a copy at 16 kHz by soxr HQ, `[ceil(T * 16000 / sample_rate)]`, as the reference's resampler gives."""
    if sample_rate == 16000:
        return np.asarray(wave, dtype=np.float32)
    resampled = np.asarray(soxr.resample(wave, sample_rate, 16000, quality="HQ"))
    length = -(-len(wave) * 16000 // sample_rate)
    if len(resampled) < length:
        resampled = np.pad(resampled, (0, length - len(resampled)))
    return resampled[:length].astype(np.float32)


def slice_recording(
    wave: Float,
    sample_rate: int,
    pieces: PieceSettings | None = None,
    slicer: SlicerSettings | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_drop: Callable[[int], None] | None = None,
) -> Iterator[Piece]:
    """Yields the training pieces of one recording, one at a time, so that a caller stores each before the next is cut.

    `wave`: float `[T]` in -1…1 at `sample_rate` Hz (the model rate). Non-finite samples count as 0, because the
    high-pass has memory and one NaN would spoil the rest of the recording. Numbers are stable: a piece dropped by
    the level rule leaves a gap, and `on_drop` is told its number. `slicing_stream.slice_blocks` does the same for a
    recording that does not fit in memory.
    """
    from libs.voice.slicing_stream import slice_blocks

    return slice_blocks([wave], sample_rate, pieces, slicer, should_stop, on_drop)
