"""How good is a conversion? Each measure is a small function that names its source; `measure` puts them together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from libs.common.errors import InvalidInput
from libs.voice.likeness import SpeakerEmbedding, best_embedding
from libs.voice.opinion import opinion
from libs.voice.phones import SPEECH_FROM, frame_phones

Float32 = NDArray[np.float32]
FRAME = 160
AUDIBLE_RMS = 1e-3
"""-60 dBFS: a result under this is silence."""


@dataclass(frozen=True)
class Sound:
    """What a wave is like as such: `peak`, `rms` (full scale is 1), `level_db` of its speech, silent or not, finite."""

    peak: float
    rms: float
    level_db: float
    is_silent: bool
    is_finite: bool


def sound_of(wave: Float32, rate: int = 16000) -> Sound:
    """`wave`: float32 `[T]` at `rate` Hz → its measures. Not finite values are left out of the numbers.

    `level_db`: RMS in dB of full scale over the 20 ms frames within 20 dB of the loudest, so that pauses do not count
    (the idea of ITU-T P.56, with a relative threshold).
    """
    finite = np.isfinite(wave)
    clean = np.where(finite, wave, 0.0).astype(np.float64)
    frame = max(rate // 50, 1)
    padded = np.pad(clean, (0, -len(clean) % frame)) if len(clean) else np.zeros(frame)
    powers = np.square(padded.reshape(-1, frame)).mean(axis=1)
    active = powers[powers >= powers.max() / 100]
    rms = float(np.sqrt(np.square(clean).mean())) if len(clean) else 0.0
    return Sound(
        peak=float(np.abs(clean).max(initial=0.0)),
        rms=rms,
        level_db=float(10 * np.log10(max(float(active.mean()), 1e-12))),
        is_silent=rms < AUDIBLE_RMS,
        is_finite=bool(finite.all()),
    )


@dataclass(frozen=True)
class PitchAgreement:
    """How one pitch curve follows another. `correlation` and `rmse_cents` are None when too little is voiced in both.

    `voicing_error`: share of frames voiced in one and not in the other. `voiced_ratio`: voiced share of the second.
    `offset_cents`: median difference, second over first.
    """

    correlation: float | None
    rmse_cents: float | None
    offset_cents: float | None
    voicing_error: float
    voiced_ratio: float


def compare_pitch(first: NDArray[np.floating], second: NDArray[np.floating], shift: float = 0.0) -> PitchAgreement:
    """F0 in Hz `[T]` at 10 ms, 0 where unvoiced → agreement over the frames voiced in both.

    `shift` in semitones is what the second was meant to be higher; `rmse_cents` is around that. Correlation is of log
    F0, because pitch is heard in ratios.
    """
    frames = min(len(first), len(second))
    if frames == 0:
        raise InvalidInput("no pitch to compare: one of the recordings is shorter than 10 ms")
    one, two = first[:frames].astype(np.float64), second[:frames].astype(np.float64)
    both = (one > 0) & (two > 0)
    correlation = rmse = offset = None
    if both.sum() >= 10:
        logs = np.log2(one[both]), np.log2(two[both])
        cents = 1200 * (logs[1] - logs[0]) - 100 * shift
        rmse, offset = float(np.sqrt(np.square(cents).mean())), float(np.median(cents) + 100 * shift)
        if min(logs[0].std(), logs[1].std()) > 1e-6:
            correlation = float(np.corrcoef(*logs)[0, 1])
    return PitchAgreement(correlation, rmse, offset, float(((one > 0) != (two > 0)).mean()), float((second > 0).mean()))


def phone_agreement(source: Float32, result: Float32, heard: NDArray[np.uint8] | None = None) -> float | None:
    """Share of the frames that hold a phone in `source` in which `result` holds the same one. Waves `[L]` at 16 kHz.

    `heard`: what `frame_phones` said of `source`, for those who compare it with many results.

    PocketSphinx judges both. A trace of noise leaves 0.74, so that is the ceiling; None when `source` holds no speech.
    Frames under -60 dBFS do not count: the judge hears phones in digital silence as well.
    """
    one, two = frame_phones(source) if heard is None else heard, frame_phones(result)
    frames = min(len(one), len(two))
    powers = np.square(source[: frames * FRAME].reshape(frames, FRAME).astype(np.float64)).mean(axis=1)
    speech = (one[:frames] >= SPEECH_FROM) & (powers > AUDIBLE_RMS**2)
    if not speech.any():
        return None
    return float((one[:frames] == two[:frames])[speech].mean())


def measure(
    source: Float32,
    result: Float32,
    target: Float32,
    estimate_f0: Callable[[Float32], NDArray[np.floating]],
    *,
    shift: float = 0.0,
    embedding: SpeakerEmbedding | None = None,
    with_phones: bool = True,
    with_opinion: bool = False,
) -> dict[str, float | bool | str | None]:
    """All measures of a conversion of `source` into the voice of `target`; float32 waves `[T]` at 16 kHz.

    `estimate_f0` gives Hz at 10 ms, 0 where unvoiced. A measure that cannot be taken is None (no speech, silence).
    Deterministic. Raises Unavailable when `with_phones` and PocketSphinx, or `with_opinion` (`dnsmos`, 1…5) and
    speechmos, is not installed.
    """
    embedding = embedding or best_embedding()
    sound = sound_of(result)
    row: dict[str, float | bool | str | None] = {
        "embedding": embedding.name,
        "similarity_target": None,
        "similarity_source": None,
        "f0_correlation": None,
        "f0_rmse_cents": None,
        "f0_offset_cents": None,
        "voicing_error": None,
        "voiced_ratio": 0.0,
        "voiced_ratio_source": None,
        "phone_agreement": None,
        "dnsmos": None,
        "peak": sound.peak,
        "rms": sound.rms,
        "level_db": sound.level_db,
        "is_silent": sound.is_silent,
        "is_finite": sound.is_finite,
    }
    if sound.is_silent or not sound.is_finite:
        return row
    made = embedding.embed(result)
    row["similarity_target"] = float(made @ embedding.embed(target))
    row["similarity_source"] = float(made @ embedding.embed(source))
    before, after = estimate_f0(source), estimate_f0(result)
    pitch = compare_pitch(before, after, shift)
    row |= {
        "f0_correlation": pitch.correlation,
        "f0_rmse_cents": pitch.rmse_cents,
        "f0_offset_cents": pitch.offset_cents,
        "voicing_error": pitch.voicing_error,
        "voiced_ratio": pitch.voiced_ratio,
        "voiced_ratio_source": float((before > 0).mean()),
    }
    if with_phones:
        row["phone_agreement"] = phone_agreement(source, result)
    if with_opinion:
        row["dnsmos"] = opinion(result).overall
    return row
