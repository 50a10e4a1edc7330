"""Is the trained voice any good, and does it sound at all? Tried on held-out clips, in a child process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Trial:
    """What is tried: a voice, and prepared 16 kHz clips of its speaker, held-out ones first.

    `native`: where the weights are to be written in our own form, and read from; None: `weights` are read as they are.
    """

    weights: Path
    index: Path
    clips: tuple[Path, ...]
    reference: tuple[Path, ...]
    seconds: float
    hubert: Path
    rmvpe: Path
    f0_method: str
    encoder: dict[str, Any]
    native: Path | None = None


def try_voice(trial: Trial, with_measures: bool = True) -> dict[str, Any]:
    """Resynthesises held-out speech of the target with the voice and measures the result.

    Returns `similarity`, `f0_correlation`, `f0_rmse_cents`, `voiced_ratio`, `level_db`, `peak`, with None for what
    cannot be measured. Raises ModelValidationFailed when the result is silent or not finite, ModelFileRefused when the
    file does not load.
    """
    import numpy as np

    from libs.audio.decode import decode
    from libs.audio.resample import resample
    from libs.common.errors import ModelValidationFailed, Unavailable
    from libs.voice.artefact import load_synthesizer
    from libs.voice.chain import Converter
    from libs.voice.content import check_same_encoder, load_content_encoder
    from libs.voice.evaluation import measure, sound_of
    from libs.voice.likeness import best_embedding
    from libs.voice.pitch import Pitch
    from libs.voice.retrieval import read_index
    from libs.voice.tools import convert_file

    if trial.native is not None:
        convert_file(trial.weights, trial.native, "safetensors", content_encoder=trial.encoder)
    synthesizer = load_synthesizer(trial.native or trial.weights)
    encoder = load_content_encoder(trial.hubert, version="v1" if synthesizer.content_width == 256 else "v2")
    check_same_encoder(trial.encoder, encoder)
    pitch = Pitch(trial.rmvpe)
    index = read_index(trial.index, width=synthesizer.content_width)

    def together(files: tuple[Path, ...]) -> Any:
        waves, total = [], 0
        for file in files:
            sound = decode(file, limit_seconds=60.0)
            waves.append(resample(sound.wave, sound.sample_rate, 16000))
            total += len(waves[-1])
            if total >= trial.seconds * 16000:
                break
        return np.concatenate(waves)[: int(trial.seconds * 16000)] if waves else np.zeros(0, np.float32)

    source = together(trial.clips)
    wave, rate = Converter(synthesizer, encoder, pitch, index).convert(
        source, 16000, index_rate=0.5, rms_mix_rate=0.25, f0_method=trial.f0_method
    )
    result = resample(wave, rate, 16000)
    sound = sound_of(result)
    if sound.is_silent or not sound.is_finite:
        what = "silence" if sound.is_finite else "values that are no numbers"
        raise ModelValidationFailed(f"the trained voice made {what} from {len(source) / 16000:.1f} s of speech")
    quality: dict[str, Any] = {"peak": round(sound.peak, 4), "level_db": round(sound.level_db, 2)}
    if not with_measures:
        return quality
    reference = together(trial.reference) if trial.reference else source
    try:
        measured = measure(source, result, reference, pitch.f0, embedding=best_embedding(), with_phones=False)
    except Unavailable:
        return quality
    names = {"similarity": "similarity_target", "f0_correlation": "f0_correlation", "f0_rmse_cents": "f0_rmse_cents"}
    names |= {"voiced_ratio": "voiced_ratio", "voicing_error": "voicing_error"}
    for ours, theirs in names.items():
        value = measured.get(theirs)
        quality[ours] = round(float(value), 4) if isinstance(value, int | float) else None
    quality["embedding"] = measured.get("embedding")
    return quality
