"""How does one recording pass through a converter, chunk by chunk? Whoever drives it encodes and renders.

    audios() ─▶ content encoder ─▶ clips() ─▶ synthesizer ─▶ parts()        again, until it is over

So that the chunks of several recordings may be encoded and rendered side by side, and one alone by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from libs.common.errors import Cancelled
from libs.voice.conversion.contour import FRAMES_PER_SECOND, change_contour
from libs.voice.conversion.cutting import Span, spans_of
from libs.voice.conversion.joining import FADE_FRAMES, SEARCH_FRAMES, Joiner
from libs.voice.conversion.loudness import speech_loudness
from libs.voice.conversion.settings import HOP, SAMPLE_RATE, Conversion
from libs.voice.conversion.source import Padded, Source
from libs.voice.pitch import coarse
from libs.voice.synthesizer import Clip

if TYPE_CHECKING:
    from libs.voice.conversion.converter import Converter

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Stop = Callable[[], bool]

PITCH_MARGIN_FRAMES = 2 * FRAMES_PER_SECOND
MORE_FRAMES = 3
"""Smooth joining gives the encoder 30 ms more, so that no chunk comes out shorter than its span."""


@dataclass(frozen=True)
class _Heard:
    """A chunk that is not silence, with its context, `[n]` at 16 kHz."""

    span: Span
    audio: Float32


class Passage:
    """The way of one prepared source. `audios`, `clips` and `parts` are called in turn until `is_over`.

    padded   |-pad-|======== source ========|-pad-|
    chunk 0  |-pad-|== s … t ==|-pad-|               the pads are context and thrown away, so that
    chunk 1               |-pad-|== t … ==|-pad-|    neighbours meet in sound that both know
    """

    def __init__(
        self,
        converter: Converter,
        source: Source,
        settings: Conversion,
        should_stop: Stop | None,
        pool: Executor,
        at_once: int = 1,
    ) -> None:
        """Begins to find the pitch in `pool`; `at_once` chunks are handed out together. Raises Cancelled."""
        self._converter = converter
        self._settings = settings
        self._should_stop = should_stop
        self._samples = len(source)
        self._is_smooth = converter.joining == "smooth"
        self._rate = converter.synthesizer.sample_rate
        self._padded = Padded(source, converter.pad_frames * HOP)
        self._spans = spans_of(
            source,
            converter.windows,
            signed_sum=converter.cut_by_signed_sum,
            split_silence=settings.split_silence,
        )
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._joiner = Joiner(self._rate // FRAMES_PER_SECOND) if self._is_smooth else None
        self._groups = [self._spans[i : i + at_once] for i in range(0, len(self._spans), at_once)]
        self._done = 0
        self._heard: list[_Heard] = []
        self._ask()
        # Pitch and content need different libraries and wait for each other only in `clips`.
        self._f0 = pool.submit(self._find_pitch)

    @property
    def is_over(self) -> bool:
        """Whether every chunk has been joined."""
        return self._done == len(self._groups)

    def audios(self) -> list[Float32]:
        """The next chunks that are not silence, with their context, each `[n]` at 16 kHz. Raises Cancelled."""
        self._ask()
        self._heard = [_Heard(span, self._audio(span)) for span in self._groups[self._done] if not span.is_silence]
        return [heard.audio for heard in self._heard]

    def clips(self, content: Sequence[Float32]) -> list[Clip]:
        """What the synthesizer reads of those chunks, from the content `[Th, width]` that was heard in each.

        Waits for the pitch, and raises what its method raises.
        """
        f0 = self._f0.result()
        return [self._clip(heard, own, f0) for heard, own in zip(self._heard, content, strict=True)]

    def parts(self, waves: Sequence[Float32]) -> list[tuple[Float32, float]]:
        """The chunks as they are joined, float32 `[n]` at the voice's rate, each with the share done, 0…1."""
        rendered = iter(waves)
        group = self._groups[self._done]
        self._done += 1
        return [
            (self._joined(span, None if span.is_silence else next(rendered)), span.end / self._samples)
            for span in group
        ]

    def _ask(self) -> None:
        if self._should_stop is not None and self._should_stop():
            raise Cancelled

    def _audio(self, span: Span) -> Float32:
        """The span with its context, and a little more, at 16 kHz."""
        stop = span.end + 2 * self._padded.pad + (MORE_FRAMES if self._is_smooth else 1) * HOP
        if span is self._spans[-1] and not self._is_smooth:
            stop = len(self._padded)
        return self._padded.read(span.start, stop).astype(np.float32)

    def _find_pitch(self) -> Float64:
        """F0 of the padded source as it is sung; zeros for a voice without pitch.

        With reference joining of the whole at once, `[len // 160]`. With smooth joining some frames more, and in
        windows of `windows.pitch` with 2 s around each.
        """
        converter, padded, settings = self._converter, self._padded, self._settings
        frames = len(padded) // HOP + (MORE_FRAMES if self._is_smooth else 0)
        if not converter.synthesizer.needs_f0:
            return np.zeros(frames)
        step = round(converter.windows.pitch * FRAMES_PER_SECOND)
        if not self._is_smooth or frames <= step:
            step = frames
        f0 = np.zeros(frames)
        for first in range(0, frames, step):
            self._ask()
            last = min(frames, first + step)
            begin, end = max(0, first - PITCH_MARGIN_FRAMES), min(frames, last + PITCH_MARGIN_FRAMES)
            audio = padded.read(begin * HOP, end * HOP if self._is_smooth else len(padded)).astype(np.float32)
            f0[first:last] = converter.pitch.f0(audio, settings.f0_method)[first - begin : last - begin]
        return change_contour(f0, settings, converter.pad_frames / FRAMES_PER_SECOND)

    def _clip(self, heard: _Heard, own: Float32, f0: Float64) -> Clip:
        converter, span, pad = self._converter, heard.span, self._converter.pad_frames
        first = span.start // HOP
        if self._is_smooth:
            kept = -(-(span.end - span.start) // HOP)
            begin, end = pad - SEARCH_FRAMES, pad + kept + SEARCH_FRAMES + FADE_FRAMES
            pitch = f0[first:]
        else:
            pitch = f0[first : None if span is self._spans[-1] else span.end // HOP + 2 * pad]
            begin, end = pad, -pad
        mixed = converter.retrieved(own, self._settings)
        frames, pitch = converter.protected(own, mixed, len(heard.audio), pitch, self._settings)
        loudness = None
        if getattr(converter.synthesizer, "wants_loudness", False):
            loudness = speech_loudness(heard.audio, len(frames))
        return Clip(
            torch.from_numpy(frames),
            torch.from_numpy(pitch.astype(np.float32)),
            torch.from_numpy(coarse(pitch)),
            self._settings.speaker_id,
            self._generator,
            begin,
            end if end > 0 else len(frames) + end,
            loudness,
        )

    def _joined(self, span: Span, part: Float32 | None) -> Float32:
        length = round(span.end * self._rate / SAMPLE_RATE) - round(span.start * self._rate / SAMPLE_RATE)
        if self._joiner is None:
            return np.zeros(length, np.float32) if part is None else part
        if part is None:
            part = np.zeros(length + 2 * self._joiner.search + self._joiner.fade, np.float32)
        return self._joiner.join(part, length)
