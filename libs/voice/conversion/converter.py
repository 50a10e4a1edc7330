"""How does a recording become the same speech in another voice? RVC's offline chain, over any synthesizer.

recording → 16 kHz → (formants) → high-pass → pitch of the whole
          → chunks cut in quiet places → content → nearest frames of the target → protect → synthesizer → joined
          → loudness of the source → peak below full scale
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.common.errors import Cancelled
from libs.voice.content import ContentEncoder
from libs.voice.conversion.contour import FRAMES_PER_SECOND, change_contour
from libs.voice.conversion.cutting import Span, spans_of
from libs.voice.conversion.formant import shift_formants
from libs.voice.conversion.joining import FADE_FRAMES, SEARCH_FRAMES, Joiner
from libs.voice.conversion.loudness import below_full_scale, frame_loudness, mix_loudness
from libs.voice.conversion.settings import HOP, SAMPLE_RATE, Conversion, Joining, Windows, check_output_rate
from libs.voice.conversion.source import ArraySource, Padded, Source, ready, sixteen_kilohertz
from libs.voice.fitting import check_widths
from libs.voice.pitch import PitchExtractor, coarse
from libs.voice.retrieval import RetrievalIndex
from libs.voice.synthesizer import Clip, ClipSynthesizer, Synthesizer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Stop = Callable[[], bool]

PITCH_MARGIN_FRAMES = 2 * FRAMES_PER_SECOND
MORE_FRAMES = 3
"""Smooth joining gives the encoder 30 ms more, so that no chunk comes out shorter than its span."""


class Converter:
    """One voice, ready to convert. Its parts are not changed, so one Converter may serve many requests."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        encoder: ContentEncoder,
        pitch: PitchExtractor,
        index: RetrievalIndex | None = None,
        windows: Windows | None = None,
        cut_by_signed_sum: bool = False,
        joining: Joining = "reference",
        batch_chunks: int = 1,
    ) -> None:
        """Raises InvalidInput when encoder, index and voice are of different widths.

        A synthesizer with `wants_loudness = True` is also given `loudness`, float32 `[T]`: the source's RMS per
        frame in dB of full scale.

        `cut_by_signed_sum`: look for quiet places as classic RVC and Applio do; the default is the newest RVC's way.
        `joining`: see `Joining`. `batch_chunks`: chunks that go through the synthesizer at once.
        """
        check_widths(synthesizer, encoder, index)
        self.synthesizer = synthesizer
        self.encoder = encoder
        self.pitch = pitch
        self.index = index
        self.windows = windows or Windows()
        self.cut_by_signed_sum = cut_by_signed_sum
        self.joining: Joining = joining
        self.batch_chunks = batch_chunks
        self.pad_frames = round(self.windows.pad * FRAMES_PER_SECOND)

    def convert(
        self,
        wave: NDArray[np.floating],
        sample_rate: int,
        conversion: Conversion | None = None,
        *,
        output_rate: int | None = None,
        should_stop: Stop | None = None,
        report: Callable[[float], None] | None = None,
        **settings: Any,
    ) -> tuple[Float32, int]:
        """Mono `wave` `[T]` at `sample_rate` Hz → (wave float32, its rate: the voice's or `output_rate`).

        A peak beyond 0.95 is turned down to it, so a wave may pass ±1; the result has a peak of 0.99 at most.

        What can be turned is in `conversion`, or by name in `settings`. `should_stop` is asked before each chunk
        (Cancelled is raised), `report` gets the share done, 0…1. The result is some 10 ms shorter than the input with
        reference joining and exactly as long with smooth joining. Raises RecordingTooShort below 0.1 s.
        """
        wanted = conversion or Conversion(**settings)
        check_output_rate(output_rate)
        low = sixteen_kilohertz(wave, sample_rate)
        source = ready(shift_formants(low, wanted.formant_timbre, wanted.formant_quefrency))
        parts = []
        for part, share in self.chunks(ArraySource(source), wanted, should_stop):
            parts.append(part)
            if report is not None:
                report(share)
        result = np.concatenate(parts)
        rate = self.synthesizer.sample_rate
        if wanted.rms_mix_rate != 1.0:
            result = mix_loudness(source, SAMPLE_RATE, result, rate, wanted.rms_mix_rate)
        if output_rate is not None and output_rate != rate:
            result, rate = resample(result, rate, output_rate), output_rate
        return below_full_scale(result), rate

    def chunks(
        self, source: Source, settings: Conversion, should_stop: Stop | None = None
    ) -> Iterator[tuple[Float32, float]]:
        """Yields the converted chunks of a prepared source in order, each with the share done.

        padded   |-pad-|======== source ========|-pad-|
        chunk 0  |-pad-|== s … t ==|-pad-|               the pads are context and thrown away, so that
        chunk 1               |-pad-|== t … ==|-pad-|    neighbours meet in sound that both know
        """
        padded = Padded(source, self.pad_frames * HOP)
        spans = spans_of(source, self.windows, signed_sum=self.cut_by_signed_sum, split_silence=settings.split_silence)
        generator = torch.Generator().manual_seed(settings.seed)
        joiner = Joiner(self.synthesizer.sample_rate // FRAMES_PER_SECOND) if self.joining == "smooth" else None
        groups = [spans[i : i + self.batch_chunks] for i in range(0, len(spans), self.batch_chunks)]
        _ask(should_stop)
        # Pitch and content need different libraries and wait for each other only here.
        with ThreadPoolExecutor(1) as pool:
            finding = pool.submit(self._pitch, padded, settings, should_stop)
            content = [self._content(self._audio(span, spans, padded), settings, span) for span in groups[0]]
            f0 = finding.result()
        for group in groups:
            _ask(should_stop)
            if group is not groups[0]:
                content = [self._content(self._audio(span, spans, padded), settings, span) for span in group]
            clips = [
                self._clip(span, spans, found, f0, settings, generator)
                for span, found in zip(group, content, strict=True)
            ]
            for span, part in zip(group, self._render(clips), strict=True):
                yield self._joined(span, part, joiner), span.end / len(source)

    def content_frames(self, audio: Float32, f0: Float64, settings: Conversion) -> tuple[Float32, Float64]:
        """What the synthesizer reads of one chunk: content `[n, width]` at 10 ms and F0 `[n]`.

        n is the smaller of the chunk's 10 ms frames and twice its content frames (and of the pitch that is there).
        """
        return self._protected(*self._retrieved(audio, settings), len(audio), f0, settings)

    def _audio(self, span: Span, spans: list[Span], padded: Padded) -> Float32:
        """The span with its context, and a little more, at 16 kHz."""
        stop = span.end + 2 * padded.pad + (MORE_FRAMES if self.joining == "smooth" else 1) * HOP
        if span is spans[-1] and self.joining == "reference":
            stop = len(padded)
        return padded.read(span.start, stop).astype(np.float32)

    def _content(self, audio: Float32, settings: Conversion, span: Span) -> _Content | None:
        return None if span.is_silence else _Content(audio, *self._retrieved(audio, settings))

    def _retrieved(self, audio: Float32, settings: Conversion) -> tuple[Float32, Float32]:
        """Content of the chunk, and the same mixed with the nearest frames of the target: both `[Th, width]`."""
        own = self.encoder.encode(audio)
        index = self.index if settings.index_rate > 0 else None
        return own, own if index is None else index.mix(own, settings.index_rate)

    def _protected(
        self, own: Float32, mixed: Float32, samples: int, f0: Float64, settings: Conversion
    ) -> tuple[Float32, Float64]:
        n = min(samples // HOP, 2 * len(own), len(f0))
        content, f0 = np.repeat(mixed, 2, axis=0)[:n], f0[:n]
        if mixed is not own and settings.protect < 0.5 and self.synthesizer.needs_f0:
            content = protect_unvoiced(content, np.repeat(own, 2, axis=0)[:n], f0, settings.protect)
        return np.ascontiguousarray(content, dtype=np.float32), f0

    def _pitch(self, padded: Padded, settings: Conversion, should_stop: Stop | None) -> Float64:
        """F0 of the padded source as it is sung; zeros for a voice without pitch.

        With reference joining of the whole at once, `[len // 160]`. With smooth joining some frames more, and in
        windows of `windows.pitch` with 2 s around each.
        """
        is_smooth = self.joining == "smooth"
        frames = len(padded) // HOP + (MORE_FRAMES if is_smooth else 0)
        if not self.synthesizer.needs_f0:
            return np.zeros(frames)
        step = round(self.windows.pitch * FRAMES_PER_SECOND)
        if not is_smooth or frames <= step:
            step = frames
        f0 = np.zeros(frames)
        for first in range(0, frames, step):
            _ask(should_stop)
            last = min(frames, first + step)
            begin, end = max(0, first - PITCH_MARGIN_FRAMES), min(frames, last + PITCH_MARGIN_FRAMES)
            audio = padded.read(begin * HOP, end * HOP if is_smooth else len(padded)).astype(np.float32)
            f0[first:last] = self.pitch.f0(audio, settings.f0_method)[first - begin : last - begin]
        return change_contour(f0, settings, self.pad_frames / FRAMES_PER_SECOND)

    def _clip(
        self,
        span: Span,
        spans: list[Span],
        content: _Content | None,
        f0: Float64,
        settings: Conversion,
        generator: torch.Generator,
    ) -> Clip | None:
        if content is None:
            return None
        first = span.start // HOP
        if self.joining == "smooth":
            kept = -(-(span.end - span.start) // HOP)
            begin, end = self.pad_frames - SEARCH_FRAMES, self.pad_frames + kept + SEARCH_FRAMES + FADE_FRAMES
            pitch = f0[first:]
        else:
            pitch = f0[first : None if span is spans[-1] else span.end // HOP + 2 * self.pad_frames]
            begin, end = self.pad_frames, -self.pad_frames
        frames, pitch = self._protected(content.own, content.mixed, len(content.audio), pitch, settings)
        loudness = None
        if getattr(self.synthesizer, "wants_loudness", False):
            loudness = torch.from_numpy(frame_loudness(content.audio, len(frames)))
        return Clip(
            torch.from_numpy(frames),
            torch.from_numpy(pitch.astype(np.float32)),
            torch.from_numpy(coarse(pitch)),
            settings.speaker_id,
            generator,
            begin,
            end if end > 0 else len(frames) + end,
            loudness,
        )

    def _render(self, clips: list[Clip | None]) -> list[Float32 | None]:
        """The frames that are kept of each clip, as samples; None for silence."""
        sounding = [clip for clip in clips if clip is not None]
        with torch.inference_mode():
            if isinstance(self.synthesizer, ClipSynthesizer):
                waves = iter(self.synthesizer.render_clips(sounding) if sounding else [])
            else:
                waves = iter([_render_whole(self.synthesizer, clip) for clip in sounding])
        return [None if clip is None else np.asarray(next(waves).float().cpu().numpy()) for clip in clips]

    def _joined(self, span: Span, part: Float32 | None, joiner: Joiner | None) -> Float32:
        rate = self.synthesizer.sample_rate
        length = round(span.end * rate / SAMPLE_RATE) - round(span.start * rate / SAMPLE_RATE)
        if joiner is None:
            return np.zeros(length, np.float32) if part is None else part
        if part is None:
            part = np.zeros(length + 2 * joiner.search + joiner.fade, np.float32)
        return joiner.join(part, length)


class _Content:
    """What was heard in one chunk: its samples, its content, and the content with the target's mixed in."""

    def __init__(self, audio: Float32, own: Float32, mixed: Float32) -> None:
        self.audio, self.own, self.mixed = audio, own, mixed


def protect_unvoiced(mixed: Float32, own: Float32, f0: Float64, protect: float) -> Float32:
    """In frames without pitch only `protect` of the retrieved content is used. All `[T, width]`, `f0` `[T]` Hz."""
    share = np.where(f0 < 1, protect, 1.0).astype(np.float32)[:, None]
    return mixed * share + own * (1 - share)


def _render_whole(synthesizer: Synthesizer, clip: Clip) -> torch.Tensor:
    extra: dict[str, Any] = {} if clip.loudness is None else {"loudness": clip.loudness}
    wave = synthesizer.render(clip.content, clip.f0_hz, clip.coarse, clip.speaker_id, clip.generator, **extra)
    hop = synthesizer.sample_rate // FRAMES_PER_SECOND
    return wave[clip.first * hop : clip.last * hop]


def _ask(should_stop: Stop | None) -> None:
    if should_stop is not None and should_stop():
        raise Cancelled
