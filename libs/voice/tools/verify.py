"""Does a voice's file really speak? Opened, given a test sound, and listened to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from libs.common.errors import ModelFileRefused
from libs.voice.artefact import read_voice, synthesizer_of
from libs.voice.chain import Converter
from libs.voice.content import frame_count
from libs.voice.evaluation import sound_of
from libs.voice.pitch import Pitch
from libs.voice.retrieval import RetrievalIndex, read_index
from libs.voice.tools.inspect import ModelInfo, describe_voice

Float32 = NDArray[np.float32]

TEST_SECONDS = 1.0
_RATE = 16_000


@dataclass(frozen=True)
class Verification:
    """What trying a voice showed.

    info         what the file says (see ModelInfo)
    index_rows   vectors in its index; None without one
    seconds      length of the test conversion
    peak         its largest absolute sample, 0…1
    level_db     its level in dB of full scale
    """

    info: ModelInfo
    index_rows: int | None
    seconds: float
    peak: float
    level_db: float


def verify_voice(model: Path, index: Path | None = None) -> Verification:
    """Open the voice at `model` (any form) and its `index`, and convert a test sound of one second on the CPU.

    The sound is a sung glide; its content is taken from the index, whose vectors are this voice's own, and without one
    drawn at random with a fixed seed. So it needs no content encoder, and says that the voice works, not how well.
    Raises NotFound, and ModelFileRefused with the reason: unsafe, another sort of file, tensors that do not fit, an
    index of another width or with values that are not finite, a result that is silent or not finite.
    """
    voice = read_voice(model)
    info = describe_voice(voice, model.name)
    synthesizer = synthesizer_of(voice, model.name)
    found = read_index(index, width=synthesizer.content_width) if index is not None else None
    if found is not None and not np.isfinite(found.vectors).all():
        raise ModelFileRefused(f"{index.name if index else ''} holds vectors that are not finite", field="index")
    encoder = _TestContent(synthesizer.content_width, found)
    converter = Converter(synthesizer, encoder, Pitch(), found)
    wave, rate = converter.convert(
        sung_glide(), _RATE, f0_method="dio", index_rate=0.5 if found is not None else 0.0, rms_mix_rate=1.0
    )
    sound = sound_of(wave, rate)
    if not sound.is_finite:
        raise ModelFileRefused(f"{model.name} makes values that are no numbers of a test sound")
    if sound.is_silent:
        raise ModelFileRefused(f"{model.name} makes silence of a test sound; it cannot speak")
    return Verification(
        info=info,
        index_rows=found.rows if found is not None else None,
        seconds=len(wave) / rate,
        peak=sound.peak,
        level_db=sound.level_db,
    )


def sung_glide(seconds: float = TEST_SECONDS) -> Float32:
    """A glide from 120 to 220 Hz with twelve falling harmonics, float32 `[T]` in -1…1 at 16 kHz."""
    time = np.arange(int(seconds * _RATE)) / _RATE
    phase = 2 * np.pi * (120 * time + 50 * time**2 / seconds)
    wave = sum(np.sin(k * phase) / k for k in range(1, 13))
    return np.asarray(0.3 * wave / np.abs(wave).max(), dtype=np.float32)


class _TestContent:
    """Stands where a content encoder does: vectors of the voice's own index, or drawn ones."""

    name = "test"
    checksum = ""

    def __init__(self, width: int, index: RetrievalIndex | None) -> None:
        self.width = width
        self.index = index

    def encode(self, wave16k: Float32) -> Float32:
        frames = frame_count(len(wave16k))
        if self.index is not None:
            rows = np.linspace(0, self.index.rows - 1, frames).astype(np.int64)
            return np.ascontiguousarray(self.index.vectors[rows])
        drawn = np.random.default_rng(0).standard_normal((frames, self.width))
        return (0.5 * drawn).astype(np.float32)
