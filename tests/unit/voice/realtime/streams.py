"""Streams whose parts are so simple that what comes out can be foretold."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from libs.common.errors import InvalidInput
from libs.voice import retrieval
from libs.voice.realtime import RealtimeConverter, RealtimeSettings


class Encoder:
    """Content frame t is the samples at 320 t."""

    name, checksum = "stub", "0" * 64

    def __init__(self, width: int) -> None:
        self.width = width
        self.calls = 0

    def encode(self, wave16k: np.ndarray) -> np.ndarray:
        self.calls += 1
        frames = (len(wave16k) - 400) // 320 + 1
        return wave16k[320 * np.arange(frames)[:, None] + np.arange(self.width)[None, :] % 400]


class Whistle:
    """Pitch by rising zero crossings of the last 100 ms: exact for sines. Records the lengths it was given."""

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def resolve(self, method: str) -> str:
        if method not in ("auto", "rmvpe", "dio"):
            raise InvalidInput(f"f0_method is {method!r}.", field="f0_method")
        return "dio" if method == "auto" else method

    def f0(self, wave16k: np.ndarray, method: str = "auto") -> np.ndarray:
        self.lengths.append(len(wave16k))
        end = wave16k[-1600:]
        rising = np.flatnonzero((end[:-1] < 0) & (end[1:] >= 0))
        moments = rising + end[rising] / (end[rising] - end[rising + 1])
        heard = len(moments) > 1 and np.abs(end).max() > 0.01
        hz = 16000 * (len(moments) - 1) / (moments[-1] - moments[0]) if heard else 0.0
        return np.full(len(wave16k) // 160 + 1, hz, dtype=np.float32)


class Sines:
    """A voice that is a sine of its pitch; it has no partial decoding of its own."""

    sample_rate, content_width, needs_f0 = 32000, 8, True

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        phase = 2 * np.pi * torch.cumsum(f0.double().repeat_interleave(320), 0) / 32000
        return (0.3 * torch.sin(phase)).float()


def stream(voice: Any = None, index: retrieval.RetrievalIndex | None = None, **settings: Any) -> RealtimeConverter:
    voice = voice or Sines()
    given = {"block_seconds": 0.1, "extra_seconds": 0.5, "input_rate": 16000, "rms_mix_rate": 1.0} | settings
    return RealtimeConverter(voice, Encoder(voice.content_width), Whistle(), index, RealtimeSettings(**given))


def run(converter: RealtimeConverter, wave: np.ndarray) -> np.ndarray:
    blocks = len(wave) // converter.block_samples
    return np.concatenate(
        [converter.process(each) for each in np.split(wave[: blocks * converter.block_samples], blocks)]
    )


def tone(seconds: float, hz: float = 200.0, rate: int = 16000) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
