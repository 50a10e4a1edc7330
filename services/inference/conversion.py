"""How is a staged recording converted? A plain blocking function."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from libs.audio.decode import decode
from libs.audio.encode import encode
from services.inference.schemas import ConversionRequest
from services.inference.voices import LoadedVoice


@dataclass(frozen=True)
class Converted:
    """The sound, encoded, and what it took."""

    content: bytes
    sample_rate: int
    seconds: float
    compute_seconds: float
    version: str
    sha256: str


def convert(
    source: Path,
    voice: LoadedVoice,
    wanted: ConversionRequest,
    *,
    limit_seconds: float,
    should_stop: Callable[[], bool],
) -> Converted:
    """Decodes, converts, encodes. Raises what libs.audio.decode raises, RecordingTooShort, Cancelled."""
    started = time.perf_counter()
    sound = decode(source, limit_seconds=limit_seconds)
    wave, rate = voice.converter.convert(
        sound.wave,
        sound.sample_rate,
        wanted.conversion(),
        output_rate=wanted.output_rate,
        should_stop=should_stop,
    )
    content = encode(wave, rate, wanted.format.value)
    return Converted(
        content=content,
        sample_rate=rate,
        seconds=len(wave) / rate,
        compute_seconds=time.perf_counter() - started,
        version=voice.version,
        sha256=voice.sha256,
    )
