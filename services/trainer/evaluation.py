"""Is the trained voice any good, and does it sound at all? Tried on held-out clips, in a child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Spoken:
    """Prepared 16 kHz clips of one speaker, held-out ones first, and others to compare with."""

    speaker: int
    clips: tuple[Path, ...]
    reference: tuple[Path, ...]


@dataclass(frozen=True)
class Trial:
    """What is tried: a voice, on `seconds` of the speech of all its speakers together.

    `native`: where the weights are to be written in our own form, and read from; None: `weights` are read as they are.
    """

    weights: Path
    index: Path
    spoken: tuple[Spoken, ...]
    seconds: float
    hubert: Path
    rmvpe: Path
    f0_method: str
    encoder: dict[str, Any]
    native: Path | None = None


SHORTEST = 3.0
"""Seconds of each speaker, however many there are."""


def try_voice(trial: Trial, with_measures: bool = True) -> dict[str, Any]:
    """Resynthesises held-out speech of each target with the voice, as that speaker, and measures the result.

    Returns `similarity`, `f0_correlation`, `f0_rmse_cents`, `voiced_ratio`, `level_db`, `peak`, with None for what
    cannot be measured. Of several speakers these are means (`peak`: the highest), and `speakers` has the same of each,
    by their numbers. Raises ModelValidationFailed when a result is silent or not finite, ModelFileRefused when the file
    does not load.
    """
    from libs.voice.artefact import load_synthesizer
    from libs.voice.chain import Converter
    from libs.voice.content import check_same_encoder, load_content_encoder
    from libs.voice.pitch import Pitch
    from libs.voice.retrieval import read_index
    from libs.voice.tools import convert_file

    if trial.native is not None:
        convert_file(trial.weights, trial.native, "safetensors", content_encoder=trial.encoder)
    synthesizer = load_synthesizer(trial.native or trial.weights)
    encoder = load_content_encoder(trial.hubert, version="v1" if synthesizer.content_width == 256 else "v2")
    check_same_encoder(trial.encoder, encoder)
    index = read_index(trial.index, width=synthesizer.content_width)
    converter = Converter(synthesizer, encoder, Pitch(trial.rmvpe), index)
    seconds = max(trial.seconds / len(trial.spoken), min(SHORTEST, trial.seconds))
    measured = {
        str(spoken.speaker): _tried(converter, spoken, seconds, trial.f0_method, with_measures)
        for spoken in trial.spoken
    }
    quality = _together(list(measured.values()))
    return quality if len(measured) == 1 else quality | {"speakers": measured}


def _tried(converter: Any, spoken: Spoken, seconds: float, f0_method: str, with_measures: bool) -> dict[str, Any]:
    """The voice as one of its speakers, with at most `seconds` of theirs."""
    from libs.audio.resample import resample
    from libs.common.errors import ModelValidationFailed, Unavailable
    from libs.voice.evaluation import measure, sound_of
    from libs.voice.likeness import best_embedding

    source = _together_at_16k(spoken.clips, seconds)
    wave, rate = converter.convert(source, 16000, index_rate=0.5, f0_method=f0_method, speaker_id=spoken.speaker)
    result = resample(wave, rate, 16000)
    sound = sound_of(result)
    if sound.is_silent or not sound.is_finite:
        what = "silence" if sound.is_finite else "values that are no numbers"
        who = f" of speaker {spoken.speaker}" if spoken.speaker else ""
        raise ModelValidationFailed(f"the trained voice made {what} from {len(source) / 16000:.1f} s of speech{who}")
    quality: dict[str, Any] = {"peak": round(sound.peak, 4), "level_db": round(sound.level_db, 2)}
    if not with_measures:
        return quality
    reference = _together_at_16k(spoken.reference, seconds) if spoken.reference else source
    try:
        measured = measure(source, result, reference, converter.pitch.f0, embedding=best_embedding(), with_phones=False)
    except Unavailable:
        return quality
    names = {"similarity": "similarity_target", "f0_correlation": "f0_correlation", "f0_rmse_cents": "f0_rmse_cents"}
    names |= {"voiced_ratio": "voiced_ratio", "voicing_error": "voicing_error"}
    for ours, theirs in names.items():
        value = measured.get(theirs)
        quality[ours] = round(float(value), 4) if isinstance(value, int | float) else None
    quality["embedding"] = measured.get("embedding")
    return quality


def _together_at_16k(files: tuple[Path, ...], seconds: float) -> Any:
    """The beginning of the files' sound, float32 `[T]` at 16 kHz, `seconds` at most."""
    import numpy as np

    from libs.audio.decode import decode
    from libs.audio.resample import resample

    waves, total = [], 0
    for file in files:
        sound = decode(file, limit_seconds=60.0)
        waves.append(resample(sound.wave, sound.sample_rate, 16000))
        total += len(waves[-1])
        if total >= seconds * 16000:
            break
    return np.concatenate(waves)[: int(seconds * 16000)] if waves else np.zeros(0, np.float32)


def _together(measured: list[dict[str, Any]]) -> dict[str, Any]:
    """One speaker's measures as they are; of several the means of what could be measured, and the highest peak."""
    if len(measured) == 1:
        return measured[0]
    found: dict[str, Any] = {}
    for name, first in measured[0].items():
        values = [each[name] for each in measured if isinstance(each.get(name), int | float)]
        found[name] = round(sum(values) / len(values), 4) if values else first
    return found | {"peak": max(each["peak"] for each in measured)}
