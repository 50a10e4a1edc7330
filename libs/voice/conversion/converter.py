"""How does a recording become the same speech in another voice? RVC's offline chain, over any synthesizer.

recording → 16 kHz → (formants) → high-pass → pitch of the whole
          → chunks cut in quiet places → content → nearest frames of the target → protect → synthesizer → joined
          → loudness of the source → peak below full scale
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.voice.content import ContentEncoder, encode_batch
from libs.voice.conversion.contour import FRAMES_PER_SECOND
from libs.voice.conversion.formant import shift_formants
from libs.voice.conversion.loudness import below_full_scale, mix_loudness
from libs.voice.conversion.passage import Passage
from libs.voice.conversion.settings import HOP, SAMPLE_RATE, Conversion, Joining, Windows, check_output_rate
from libs.voice.conversion.source import ArraySource, Source, ready, sixteen_kilohertz
from libs.voice.fitting import check_widths
from libs.voice.pitch import PitchExtractor
from libs.voice.retrieval import RetrievalIndex
from libs.voice.synthesizer import Clip, ClipSynthesizer, Synthesizer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Stop = Callable[[], bool]


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
        frame in dB over the level of its speech.

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
        source = self.prepare(wave, sample_rate, wanted)
        parts = []
        for part, share in self.chunks(ArraySource(source), wanted, should_stop):
            parts.append(part)
            if report is not None:
                report(share)
        return self.finish(source, parts, wanted, output_rate)

    def chunks(
        self, source: Source, settings: Conversion, should_stop: Stop | None = None
    ) -> Iterator[tuple[Float32, float]]:
        """Yields the converted chunks of a prepared source in order, float32 `[n]`, each with the share done, 0…1."""
        with ThreadPoolExecutor(1) as pool:
            passage = Passage(self, source, settings, should_stop, pool, at_once=self.batch_chunks)
            while not passage.is_over:
                content = encode_batch(self.encoder, passage.audios())
                yield from passage.parts(self.render(passage.clips(content)))

    def prepare(self, wave: NDArray[np.floating], sample_rate: int, wanted: Conversion) -> Float64:
        """Mono `wave` `[T]` at `sample_rate` Hz → the source that is converted, float64 `[T']` at 16 kHz.

        Raises RecordingTooShort below 0.1 s, InvalidInput for several channels.
        """
        low = sixteen_kilohertz(wave, sample_rate)
        return ready(shift_formants(low, wanted.formant_timbre, wanted.formant_quefrency))

    def finish(
        self, source: Float64, parts: list[Float32], wanted: Conversion, output_rate: int | None
    ) -> tuple[Float32, int]:
        """The converted chunks `[n]` of a prepared source → (whole wave with its loudness, its rate)."""
        result = np.concatenate(parts)
        rate = self.synthesizer.sample_rate
        if (mix := wanted.mix_of(self.synthesizer)) != 1.0:
            result = mix_loudness(source, SAMPLE_RATE, result, rate, mix)
        if output_rate is not None and output_rate != rate:
            result, rate = resample(result, rate, output_rate), output_rate
        return below_full_scale(result), rate

    def content_frames(self, audio: Float32, f0: Float64, settings: Conversion) -> tuple[Float32, Float64]:
        """What the synthesizer reads of one chunk: content `[n, width]` at 10 ms and F0 `[n]`.

        n is the smaller of the chunk's 10 ms frames and twice its content frames (and of the pitch that is there).
        """
        own = self.encoder.encode(audio)
        return self.protected(own, self.retrieved(own, settings), len(audio), f0, settings)

    def retrieved(self, own: Float32, settings: Conversion) -> Float32:
        """Content of a chunk `[Th, width]` mixed with the nearest frames of the target; `own` itself without them."""
        index = self.index if settings.index_rate > 0 else None
        return own if index is None else index.mix(own, settings.index_rate)

    def render(self, clips: Sequence[Clip]) -> list[Float32]:
        """The frames that are kept of each clip, as samples `[n]`; several in one pass if the voice can."""
        with torch.inference_mode():
            if not isinstance(self.synthesizer, ClipSynthesizer):
                waves = [_render_whole(self.synthesizer, clip) for clip in clips]
            else:
                waves = self.synthesizer.render_clips(clips) if clips else []
        return [np.asarray(wave.float().cpu().numpy()) for wave in waves]

    def protected(
        self, own: Float32, mixed: Float32, samples: int, f0: Float64, settings: Conversion
    ) -> tuple[Float32, Float64]:
        """Content `[n, width]` and F0 `[n]` Hz at 10 ms, from content `own` and `mixed` `[Th, width]` at 20 ms."""
        n = min(samples // HOP, 2 * len(own), len(f0))
        content, f0 = np.repeat(mixed, 2, axis=0)[:n], f0[:n]
        if mixed is not own and settings.protect < 0.5 and self.synthesizer.needs_f0:
            content = protect_unvoiced(content, np.repeat(own, 2, axis=0)[:n], f0, settings.protect)
        return np.ascontiguousarray(content, dtype=np.float32), f0


def protect_unvoiced(mixed: Float32, own: Float32, f0: Float64, protect: float) -> Float32:
    """In frames without pitch only `protect` of the retrieved content is used. All `[T, width]`, `f0` `[T]` Hz."""
    share = np.where(f0 < 1, protect, 1.0).astype(np.float32)[:, None]
    return mixed * share + own * (1 - share)


def _render_whole(synthesizer: Synthesizer, clip: Clip) -> torch.Tensor:
    extra: dict[str, Any] = {} if clip.loudness is None else {"loudness": clip.loudness}
    wave = synthesizer.render(clip.content, clip.f0_hz, clip.coarse, clip.speaker_id, clip.generator, **extra)
    hop = synthesizer.sample_rate // FRAMES_PER_SECOND
    return wave[clip.first * hop : clip.last * hop]
