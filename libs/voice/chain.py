"""How does a recording become the same speech in another voice? RVC's offline chain, over any synthesizer.

recording → 16 kHz → high-pass → pitch of the whole
          → chunks cut in quiet places → content → nearest frames of the target → protect → synthesizer → joined
          → loudness of the source → peak below full scale
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray

from libs.audio.resample import resample
from libs.common.errors import Cancelled, InvalidInput, RecordingTooShort
from libs.voice.content import ContentEncoder
from libs.voice.pitch import SEMITONE_LIMIT, PitchExtractor, coarse, fill_unvoiced, shift
from libs.voice.retrieval import RetrievalIndex
from libs.voice.slicing import HIGH_PASS_HZ, HIGH_PASS_ORDER, frame_rms
from libs.voice.synthesizer import Synthesizer

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

SAMPLE_RATE = 16000
HOP = 160
INPUT_PEAK = 0.95
OUTPUT_PEAK = 0.99
SHORTEST_SECONDS = 0.1


@dataclass(frozen=True)
class Windows:
    """How long recordings are cut, in seconds: context around a chunk, search range, chunk length, longest uncut."""

    pad: float = 1.0
    query: float = 6.0
    center: float = 38.0
    longest: float = 41.0


@dataclass(frozen=True)
class Conversion:
    """What a user can turn. Ranges are checked here; InvalidInput names the field and its limits.

    `pitch_shift` semitones -24…24 · `index_rate` 0…1, share of the target's nearest frames · `protect` 0…0.5, how much
    of them unvoiced frames get (0.5 is off) · `rms_mix_rate` 0…1, 0 follows the source's loudness, 1 its
    own · `fill_unvoiced` interpolates pitch through unvoiced frames, as the newest RVC does · `seed` fixes all chance.
    """

    pitch_shift: float = 0.0
    index_rate: float = 0.5
    protect: float = 0.33
    rms_mix_rate: float = 0.25
    f0_method: str = "auto"
    speaker_id: int = 0
    seed: int = 0
    fill_unvoiced: bool = False

    def __post_init__(self) -> None:
        limits = {
            "pitch_shift": (-SEMITONE_LIMIT, SEMITONE_LIMIT),
            "index_rate": (0.0, 1.0),
            "protect": (0.0, 0.5),
            "rms_mix_rate": (0.0, 1.0),
            "speaker_id": (0, 2333),
            "seed": (0, 2**63 - 1),
        }
        for field, (low, high) in limits.items():
            value = getattr(self, field)
            # Written so that NaN is refused as well.
            if not low <= value <= high:
                raise InvalidInput(f"{field} is {value:g}; it must lie in {low:g}…{high:g}.", field=field)


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
    ) -> None:
        """Raises InvalidInput when encoder, index and voice are of different widths.

        A synthesizer with `wants_loudness = True` is also given `loudness`, float32 `[T]`: the source's RMS per
        frame in dB of full scale.

        `cut_by_signed_sum`: look for quiet places as classic RVC and Applio do; the default is the newest RVC's way.
        """
        if encoder.width != synthesizer.content_width:
            raise InvalidInput(
                f"This voice reads content of {synthesizer.content_width} values and `{encoder.name}` gives "
                f"{encoder.width}; v1 voices need a v1 encoder, v2 voices a v2 encoder.",
                field="content_encoder",
            )
        if index is not None and index.width != synthesizer.content_width:
            raise InvalidInput(
                f"The index holds vectors of {index.width} values and this voice needs {synthesizer.content_width}.",
                field="index",
            )
        self.synthesizer = synthesizer
        self.encoder = encoder
        self.pitch = pitch
        self.index = index
        self.windows = windows or Windows()
        self.cut_by_signed_sum = cut_by_signed_sum

    def convert(
        self,
        wave: NDArray[np.floating],
        sample_rate: int,
        *,
        pitch_shift: float = 0.0,
        index_rate: float = 0.5,
        protect: float = 0.33,
        rms_mix_rate: float = 0.25,
        f0_method: str = "auto",
        speaker_id: int = 0,
        seed: int = 0,
        fill_unvoiced: bool = False,
        output_rate: int | None = None,
        should_stop: Callable[[], bool] | None = None,
        report: Callable[[float], None] | None = None,
    ) -> tuple[Float32, int]:
        """Mono `wave` `[T]` in -1…1 at `sample_rate` Hz → (wave float32, its rate: the voice's or `output_rate`).

        See Conversion for the parameters. `should_stop` is asked before each chunk (Cancelled is raised), `report` gets
        the share done, 0…1. The result may be some 10 ms shorter than the input. Raises RecordingTooShort below 0.1 s.
        """
        settings = Conversion(
            pitch_shift, index_rate, protect, rms_mix_rate, f0_method, speaker_id, seed, fill_unvoiced
        )
        if output_rate is not None and not 8000 <= output_rate <= 192000:
            raise InvalidInput(f"output_rate is {output_rate}; it must lie in 8000…192000 Hz.", field="output_rate")
        source = prepare_source(wave, sample_rate)
        parts = []
        for part, share in self.chunks(source, settings, should_stop):
            parts.append(part)
            if report is not None:
                report(share)
        result = np.concatenate(parts)
        rate = self.synthesizer.sample_rate
        if settings.rms_mix_rate != 1.0:
            result = mix_loudness(source, SAMPLE_RATE, result, rate, settings.rms_mix_rate)
        if output_rate is not None and output_rate != rate:
            result, rate = resample(result, rate, output_rate), output_rate
        return below_full_scale(result), rate

    def chunks(
        self, source: Float64, settings: Conversion, should_stop: Callable[[], bool] | None = None
    ) -> Iterator[tuple[Float32, float]]:
        """Yields the converted chunks of a prepared source in order, each with the share done.

        padded   |-pad-|======== source ========|-pad-|
        chunk 0  |-pad-|== s … t ==|-pad-|               the pads are rendered and thrown away: context, so that
        chunk 1               |-pad-|== t … ==|-pad-|    neighbours meet in sound that both know
        """
        pad = int(SAMPLE_RATE * self.windows.pad)
        target_pad = int(self.synthesizer.sample_rate * self.windows.pad)
        padded = np.pad(source, (pad, pad), mode="reflect")
        if should_stop is not None and should_stop():
            raise Cancelled
        f0 = self._pitch(padded, settings)
        generator = torch.Generator().manual_seed(settings.seed)
        cuts = [t // HOP * HOP for t in cut_points(source, self.windows, self.cut_by_signed_sum)]
        starts, ends = [0, *cuts], [*cuts, None]
        for start, end in zip(starts, ends, strict=True):
            if should_stop is not None and should_stop():
                raise Cancelled
            audio = padded[start : None if end is None else end + 2 * pad + HOP]
            pitch = f0[start // HOP : None if end is None else (end + 2 * pad) // HOP]
            part = self._convert_chunk(audio.astype(np.float32), pitch, settings, generator)
            yield part[target_pad : len(part) - target_pad], 1.0 if end is None else end / len(source)

    def _pitch(self, padded: Float64, settings: Conversion) -> Float64:
        """F0 of the padded source after filling and shifting, `[len // 160]`; zeros for a voice without pitch."""
        frames = len(padded) // HOP
        if not self.synthesizer.needs_f0:
            return np.zeros(frames)
        f0 = self.pitch.f0(padded.astype(np.float32), settings.f0_method).astype(np.float64)[:frames]
        return shift(fill_unvoiced(f0) if settings.fill_unvoiced else f0, settings.pitch_shift)

    def _convert_chunk(self, audio: Float32, f0: Float64, settings: Conversion, generator: torch.Generator) -> Float32:
        content, f0 = self.content_frames(audio, f0, settings)
        extra: dict[str, Any] = {}
        if getattr(self.synthesizer, "wants_loudness", False):
            extra["loudness"] = torch.from_numpy(frame_loudness(audio, len(content)))
        with torch.inference_mode():
            wave = self.synthesizer.render(
                torch.from_numpy(content),
                torch.from_numpy(f0.astype(np.float32)),
                torch.from_numpy(coarse(f0)),
                settings.speaker_id,
                generator,
                **extra,
            )
        return np.asarray(wave.float().cpu().numpy(), dtype=np.float32)

    def content_frames(self, audio: Float32, f0: Float64, settings: Conversion) -> tuple[Float32, Float64]:
        """What the synthesizer reads of one chunk: content `[n, width]` at 10 ms and F0 `[n]`.

        n is the smaller of the chunk's 10 ms frames and twice its content frames (and of the pitch that is there).
        """
        own = self.encoder.encode(audio)
        index = self.index if settings.index_rate > 0 else None
        mixed = own if index is None else index.mix(own, settings.index_rate)
        n = min(len(audio) // HOP, 2 * len(own), len(f0))
        content, f0 = np.repeat(mixed, 2, axis=0)[:n], f0[:n]
        if index is not None and settings.protect < 0.5 and self.synthesizer.needs_f0:
            content = protect_unvoiced(content, np.repeat(own, 2, axis=0)[:n], f0, settings.protect)
        return np.ascontiguousarray(content, dtype=np.float32), f0


def prepare_source(wave: NDArray[np.floating], sample_rate: int) -> Float64:
    """Mono `[T]` at any rate → float64 `[T']` at 16 kHz, peak at most 0.95, without what is below 48 Hz (zero phase).

    Samples that are not finite count as 0. Raises RecordingTooShort below 0.1 s, InvalidInput for several channels.
    """
    if wave.ndim != 1:
        raise InvalidInput(f"One channel is expected and the wave has shape {list(wave.shape)}.", field="recording")
    if len(wave) < SHORTEST_SECONDS * sample_rate:
        raise RecordingTooShort(
            f"{len(wave) / sample_rate:.2f} s given, {SHORTEST_SECONDS:g} s needed.", field="recording"
        )
    clean = np.nan_to_num(np.asarray(wave, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low = resample(clean, sample_rate, SAMPLE_RATE)
    excess = float(np.abs(low).max()) / INPUT_PEAK
    if excess > 1:
        low = low / np.float32(excess)
    b, a = scipy.signal.butter(HIGH_PASS_ORDER, HIGH_PASS_HZ, btype="high", fs=SAMPLE_RATE)
    return np.asarray(scipy.signal.filtfilt(b, a, low), dtype=np.float64)


def cut_points(source: Float64, windows: Windows, signed_sum: bool = False) -> list[int]:
    """Samples at which a long source is cut: the quietest 10 ms within `query` of each multiple of `center`.

    Empty when the source is not longer than `longest`. `signed_sum`: classic form, |sum| instead of sum of |x|.
    """
    if len(source) + HOP <= SAMPLE_RATE * windows.longest:
        return []
    center, query = int(SAMPLE_RATE * windows.center), int(SAMPLE_RATE * windows.query)
    padded = np.pad(source, (HOP // 2, HOP // 2), mode="reflect")
    if not signed_sum:
        padded = np.abs(padded)
    cuts = []
    for t in range(center, len(source), center):
        begin, end = t - query, min(t + query, len(source))
        level = np.zeros(end - begin)
        for i in range(HOP):
            level += padded[begin + i : end + i]
        cuts.append(begin + int(np.argmin(np.abs(level))))
    return cuts


def protect_unvoiced(mixed: Float32, own: Float32, f0: Float64, protect: float) -> Float32:
    """In frames without pitch only `protect` of the retrieved content is used. All `[T, width]`, `f0` `[T]` Hz."""
    share = np.where(f0 < 1, protect, 1.0).astype(np.float32)[:, None]
    return mixed * share + own * (1 - share)


def mix_loudness(
    source: NDArray[np.floating], source_rate: int, result: Float32, result_rate: int, rate: float
) -> Float32:
    """The result with `1 - rate` of the source's loudness curve (RMS over 1 s every 0.5 s), rest its own. `[T]`."""
    length = len(result)
    if not length:
        return result
    wanted, own = (
        _stretch(frame_rms(wave, hz // 2 * 2, hz // 2), length)
        for wave, hz in ((source, source_rate), (result, result_rate))
    )
    gain = np.power(wanted, 1 - rate) * np.power(np.maximum(own, 1e-6), rate - 1)
    return np.asarray(result * gain, dtype=np.float32)


def _stretch(curve: Float64, length: int) -> Float64:
    """Linear interpolation to `length` points, half-pixel centres, edges held."""
    position = (np.arange(length) + 0.5) * (len(curve) / length) - 0.5
    return np.asarray(np.interp(position, np.arange(len(curve)), curve))


def frame_loudness(audio: Float32, frames: int) -> Float32:
    """RMS per 10 ms in dB of full scale, over 40 ms around each frame, not below -100. `[L]` at 16 kHz → `[frames]`."""
    rms = frame_rms(audio, 4 * HOP, HOP)
    decibels = 20 * np.log10(np.maximum(rms, 1e-5))
    held = np.pad(decibels, (0, max(0, frames - len(decibels))), mode="edge")
    return held[:frames].astype(np.float32)


def below_full_scale(wave: Float32) -> Float32:
    """Scaled down to a peak of 0.99 if it is above; otherwise unchanged."""
    excess = float(np.abs(wave).max(initial=0.0)) / OUTPUT_PEAK
    return wave / np.float32(excess) if excess > 1 else wave
