"""Small parts for tests of conversion: encoder, pitch and voice as plain functions of what they are given."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from libs.voice import chain
from libs.voice.pitch import Pitch

HELD_HZ = 203.7
"""No whole number of periods fits into a frame, so a chunk that starts anew is out of step."""


class PlainEncoder:
    """Content frame t is the samples at 320 t."""

    name, checksum = "plain", "0" * 64

    def __init__(self, width: int = 8) -> None:
        self.width = width

    def encode(self, wave16k: np.ndarray) -> np.ndarray:
        frames = (len(wave16k) - 400) // 320 + 1
        at = 320 * np.arange(frames)[:, None] + np.arange(self.width)[None, :]
        return 4 * wave16k[at]


class SteadyPitch:
    """HELD_HZ wherever there is sound."""

    def resolve(self, method: str) -> str:
        return method

    def f0(self, wave16k: np.ndarray, method: str = "auto") -> np.ndarray:
        frames = np.pad(np.abs(wave16k), (0, 160))[: (len(wave16k) // 160 + 1) * 160].reshape(-1, 160).max(axis=1)
        return np.where(frames > 1e-3, HELD_HZ, 0.0).astype(np.float32)


class SineVoice:
    """Sings its pitch as a sine that starts anew in each chunk, as loud as its content; a little noise with `noise`."""

    sample_rate, content_width, needs_f0 = 32000, 8, True

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.frames: list[int] = []
        self.f0: list[Tensor] = []

    def render(self, content: Tensor, f0: Tensor, coarse: Tensor, speaker: int, generator: torch.Generator) -> Tensor:
        self.frames.append(len(f0))
        self.f0.append(f0)
        hop = self.sample_rate // 100
        phase = 2 * np.pi * torch.cumsum(f0.double().repeat_interleave(hop), 0) / self.sample_rate
        noise = torch.randn(len(f0) * hop, generator=generator)
        return (0.3 * torch.sin(phase) + self.noise * noise).float()


def speech(seconds: float, rate: int = 16000) -> np.ndarray:
    """A gliding voice with a pause in every third second. float32 `[seconds * rate]`."""
    time = np.arange(int(seconds * rate)) / rate
    phase = 2 * np.pi * np.cumsum(180 + 40 * np.sin(2 * np.pi * 0.31 * time)) / rate
    loudness = np.where(time % 3 < 2.6, 0.6 + 0.4 * np.sin(2 * np.pi * 0.5 * time), 0.0)
    return (0.1 * loudness * sum(np.sin(k * phase) / k for k in range(1, 9))).astype(np.float32)


SHORT_WINDOWS = chain.Windows(pad=0.5, query=1.0, center=4.0, longest=5.0)


def converter(voice: SineVoice | None = None, **more: object) -> chain.Converter:
    """A converter of small parts, joined smoothly unless asked otherwise."""
    settings = {"pitch": Pitch(), "windows": SHORT_WINDOWS, "joining": "smooth", **more}
    return chain.Converter(voice or SineVoice(), PlainEncoder(), **settings)  # type: ignore[arg-type]
