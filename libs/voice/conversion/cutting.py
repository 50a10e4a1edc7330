"""Where is a long recording cut, and which stretches of it are silence?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.voice.conversion.loudness import rms_curve
from libs.voice.conversion.settings import HOP, SAMPLE_RATE, Windows
from libs.voice.conversion.source import ArraySource, Float64, Padded, Source

SILENCE_DB = 60.0
SILENCE_HOP = SAMPLE_RATE // 8
"""125 ms; frames are twice as long."""


@dataclass(frozen=True)
class Span:
    """Samples `[start, end)` of a source at 16 kHz that are converted at once; silence is not converted at all."""

    start: int
    end: int
    is_silence: bool = False


def spans_of(source: Source, windows: Windows, *, signed_sum: bool = False, split_silence: bool = False) -> list[Span]:
    """The whole source as spans in order; all borders but the last are multiples of 160."""
    sounding = voiced_stretches(source) if split_silence else [(0, len(source))]
    spans, at = [], 0
    for start, end in sounding:
        if start > at:
            spans.append(Span(at, start, is_silence=True))
        part = source if (start, end) == (0, len(source)) else _Part(source, start, end)
        cuts = [start + t // HOP * HOP for t in cut_points(part, windows, signed_sum)]
        spans += [Span(*border) for border in zip([start, *cuts], [*cuts, end], strict=True)]
        at = end
    if at < len(source):
        spans.append(Span(at, len(source), is_silence=True))
    return spans


class _Part:
    """A stretch of a source as a source."""

    def __init__(self, source: Source, start: int, end: int) -> None:
        self._source, self._start, self._end = source, start, end

    def __len__(self) -> int:
        return self._end - self._start

    def read(self, start: int, stop: int) -> Float64:
        return self._source.read(self._start + start, self._start + stop)


def cut_points(source: Source | NDArray[np.floating], windows: Windows, signed_sum: bool = False) -> list[int]:
    """Samples at which a long source `[T]` is cut: the quietest 10 ms within `query` of each multiple of `center`.

    Empty when the source is not longer than `longest`. `signed_sum`: classic form, |sum| instead of sum of |x|.
    """
    if isinstance(source, np.ndarray):
        source = ArraySource(source)
    if len(source) + HOP <= SAMPLE_RATE * windows.longest:
        return []
    center, query = int(SAMPLE_RATE * windows.center), int(SAMPLE_RATE * windows.query)
    padded = Padded(source, HOP // 2)
    cuts = []
    for t in range(center, len(source), center):
        begin, end = t - query, min(t + query, len(source))
        near = padded.read(begin, end + HOP)
        if not signed_sum:
            near = np.abs(near)
        level = np.zeros(end - begin)
        for i in range(HOP):
            level += near[i : i + end - begin]
        cuts.append(begin + int(np.argmin(np.abs(level))))
    return cuts


def voiced_stretches(source: Source) -> list[tuple[int, int]]:
    """Stretches `[start, end)` that are within 60 dB of the loudest frame; frames of 250 ms every 125 ms.

    The rule of librosa's `effects.split` (McFee et al. 2015), which Applio uses. Borders are widened to multiples of
    160; a source that is silent throughout is one stretch.
    """
    rms = rms_curve(source, SILENCE_HOP)
    loud = rms > max(rms.max(initial=0.0) * 10 ** (-SILENCE_DB / 20), 1e-5)
    if not loud.any():
        return [(0, len(source))]
    edges = np.flatnonzero(np.diff(np.concatenate([[False], loud, [False]]).astype(np.int8)))
    stretches: list[tuple[int, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        start = first * SILENCE_HOP // HOP * HOP
        end = min(-(-last * SILENCE_HOP // HOP) * HOP, len(source))
        if stretches and start <= stretches[-1][1]:
            start = stretches.pop()[0]
        if end > start:
            stretches.append((start, end))
    return stretches
