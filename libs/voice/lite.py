"""How does the `lite` voice speak? A harmonic source and noise, each through a filter that a small network draws.

Differentiable DSP (Engel et al. 2020, arXiv 2001.04643): the pitch is put in by construction and cannot be missed, so
the network has only timbre to learn, and five minutes on two cores are enough.

    content, log F0, voiced, loudness → blocks → log magnitudes ┬→ filter × STFT(pulse train) ┐
                                                                └→ filter × STFT(white noise) ┴→ inverse STFT → wave
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.content_network import Block
from libs.voice.lite_clips import render_clips
from libs.voice.lite_loudness import as_read
from libs.voice.lite_speakers import Tints
from libs.voice.synthesizer import Clip, check_speaker

QUIETEST = -14.0
LOUDEST = 5.0
"""Bounds of the filters' log magnitudes: -122 dB is silence, +43 dB is more than speech needs."""


@dataclass(frozen=True)
class LiteConfig:
    """Dimensions; frames are 10 ms, so the hop is `sample_rate // 100`. `fft` is the filters' window and transform.

    `loudness`: 1 when the network reads how loud each frame is; the first voices did not. `speakers`: as how many
    people it speaks, numbered from 0.
    """

    sample_rate: int = 24000
    content_width: int = 768
    fft: int = 1024
    width: int = 256
    hidden: int = 768
    blocks: int = 5
    kernel: int = 9
    loudness: int = 0
    speakers: int = 1

    @property
    def hop_length(self) -> int:
        """Samples per frame."""
        return self.sample_rate // 100

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what the first voices did not have is named only where it is used."""
        first = {"loudness": 0, "speakers": 1}
        return {name: value for name, value in asdict(self).items() if value != first.get(name)}


def glide(f0_hz: Tensor, hop: int) -> tuple[Tensor, Tensor]:
    """Frame values → sample values: F0 and gate, both float32 `[B, T * hop]`, of `f0_hz` `[B, T]` (0 where unvoiced).

    F0 is interpolated linearly in time between voiced frames, and held into their unvoiced neighbours, so that no pitch
    slides to zero. The gate moves between 0 and 1 over one frame: a voice sets in without a click. Frame t is
    centred on sample t * hop.
    """
    batch, frames = f0_hz.shape
    voiced = (f0_hz > 0).to(f0_hz.dtype)
    moments = torch.arange(frames, device=f0_hz.device).expand(batch, frames)
    before = torch.where(voiced > 0, moments, -1).cummax(dim=1).values
    after = torch.where(voiced > 0, moments, frames).flip(1).cummin(dim=1).values.flip(1)
    nearest = torch.where((moments - before <= after - moments) & (before >= 0), before, after).clamp(0, frames - 1)
    held = f0_hz.gather(1, nearest)

    def spread(values: Tensor) -> Tensor:
        ahead = torch.cat((values[:, 1:], values[:, -1:]), dim=1)
        step = torch.arange(hop, device=values.device, dtype=values.dtype) / hop
        return (values[:, :, None] + (ahead - values)[:, :, None] * step).reshape(batch, frames * hop)

    return spread(held), spread(voiced)


def pulses(f0: Tensor, gate: Tensor, rate: int, start: float = 0.0) -> Tensor:
    """Band-limited pulse train `[B, N]` of the sample-wise `f0` in Hz; `start` is the phase in cycles.

    The sum of the first K harmonics in closed form, sin((K + ½)φ) / (2 sin(φ/2)) − ½, with K at most the number below
    Nyquist, over √(K + 1). K is let slide: a last harmonic comes in gradually, because one that appears at once clicks.
    """
    f0 = f0.clamp(min=1.0)
    cycles = torch.cumsum(f0.double() / rate, dim=1) + start  # float32 would drift within seconds
    phase = ((cycles - cycles.round()) * 2 * math.pi).to(f0.dtype)  # -π…π: precise where the pulses peak
    limit = (rate / 2 / f0 - 1.0).clamp(min=1.0)
    count = limit.floor()
    half = phase / 2
    sine = torch.sin(half)
    near = sine.abs() < 1e-4
    train = torch.sin((2 * count + 1) * half) / torch.where(near, torch.ones_like(sine), 2 * sine) - 0.5
    train = torch.where(near, count, train) + (limit - count) * torch.cos((count + 1) * phase)
    return gate * train / torch.sqrt(limit + 1)


class LiteSynthesizer(nn.Module):
    """The decoder of the `lite` voice; implements the Synthesizer protocol."""

    needs_f0: ClassVar[bool] = True

    def __init__(self, config: LiteConfig | None = None) -> None:
        super().__init__()
        self.config = config or LiteConfig()
        self.sample_rate = self.config.sample_rate
        self.hop_length = self.config.hop_length
        self.content_width = self.config.content_width
        width, bins = self.config.width, self.config.fft // 2 + 1
        self.wants_loudness = bool(self.config.loudness)
        self.entry = nn.Linear(self.config.content_width + 2 + self.config.loudness, width)
        self.blocks = nn.ModuleList(
            Block(width, self.config.hidden, self.config.kernel) for _ in range(self.config.blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 2 * bins)
        nn.init.zeros_(self.head.weight)
        nn.init.constant_(self.head.bias, -4.0)
        self.speakers = self.config.speakers
        self.tints = Tints(self.speakers, width, 2 * bins) if self.speakers > 1 else None
        self.window: Tensor
        self.register_buffer("window", torch.hann_window(self.config.fft), persistent=False)

    def heard(self, content: Tensor, f0_hz: Tensor, loudness: Tensor | None = None) -> Tensor:
        """What the first layer reads, `[B, T, content_width + 2 or 3]`, of `content` `[B, T, content_width]`, `f0_hz`
        `[B, T]` and `loudness` `[B, T]` in dB over the level of speech (default: 0, see lite_loudness)."""
        # One length for every frame: HuBERT's 768 numbers and 42 posteriors padded with zeros then weigh the same.
        content = functional.normalize(content, dim=2, eps=1e-3) * math.sqrt(self.content_width)
        voiced = (f0_hz > 0).to(content.dtype)
        # Natural log, because pitch is heard in ratios.
        pitch = torch.log(f0_hz.clamp(min=1.0) / 200.0) * voiced
        parts = [content, pitch[:, :, None], voiced[:, :, None]]
        if self.wants_loudness:
            parts.append(torch.zeros_like(parts[1]) if loudness is None else as_read(loudness)[:, :, None])
        return torch.cat(parts, dim=2)

    def filters(
        self,
        content: Tensor,
        f0_hz: Tensor,
        loudness: Tensor | None = None,
        tint: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """What `heard` takes → log magnitudes of both filters, each `[B, bins, T]`.

        `tint`: what a speaker adds to the first and the last layer, `[B, width]` and `[B, 2 * bins]`, when one network
        speaks as several.
        """
        x = self.entry(self.heard(content, f0_hz, loudness))
        x = (x if tint is None else x + tint[0][:, None]).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        magnitudes = self.head(self.norm(x.transpose(1, 2))).float()
        magnitudes = magnitudes if tint is None else magnitudes + tint[1][:, None]
        harmonic, noise = magnitudes.transpose(1, 2).clamp(QUIETEST, LOUDEST).chunk(2, dim=1)
        return harmonic, noise

    def tint(self, speakers: Tensor) -> tuple[Tensor, Tensor] | None:
        """What `filters` takes, of speakers int64 `[B]`; None for a voice of one speaker."""
        return None if self.tints is None else self.tints(speakers)

    def forward(
        self,
        content: Tensor,
        f0_hz: Tensor,
        noise: Tensor,
        loudness: Tensor | None = None,
        speakers: Tensor | None = None,
    ) -> Tensor:
        """What `heard` takes, and white noise `[B, T * hop]` → wave `[B, T * hop]`.

        `speakers`: int64 `[B]`; default: speaker 0.
        """
        who = torch.zeros(len(content), dtype=torch.int64, device=content.device) if speakers is None else speakers
        return self.sound(f0_hz, *self.filters(content, f0_hz, loudness, self.tint(who)), noise)

    def sound(self, f0_hz: Tensor, harmonic: Tensor, breath: Tensor, noise: Tensor) -> Tensor:
        """The filters' log magnitudes `[B, bins, T]` applied to pulses and `noise` `[B, T * hop]` → the wave."""
        with torch.no_grad():
            source = pulses(*glide(f0_hz, self.hop_length), self.sample_rate)
            excitation = self._stft(torch.cat((source, noise)))
            voice, hiss = excitation.chunk(2)
        spectrum = voice * self._held(harmonic) + hiss * self._held(breath)
        return torch.istft(
            spectrum, self.config.fft, self.hop_length, window=self.window, length=f0_hz.shape[1] * self.hop_length
        )

    def _held(self, magnitudes: Tensor) -> Tensor:
        """exp of the filters, the last frame twice: a transform of T hops has T + 1 frames."""
        return torch.exp(torch.cat((magnitudes, magnitudes[:, :, -1:]), dim=2))

    def _stft(self, wave: Tensor) -> Tensor:
        return torch.stft(
            wave, self.config.fft, self.hop_length, window=self.window, pad_mode="constant", return_complex=True
        )

    def render(
        self,
        content: Tensor,
        f0_hz: Tensor,
        coarse: Tensor,
        speaker_id: int,
        generator: torch.Generator,
        loudness: Tensor | None = None,
    ) -> Tensor:
        """One piece of speech: content float32 `[T, content_width]`, F0 in Hz `[T]` → wave float32 `[T * hop_length]`.

        `loudness` `[T]` in dB over the level of speech is for voices that want it. `coarse` is not used: the filters
        read F0 itself. All chance comes from `generator` (CPU). Raises InvalidInput for a speaker that is not there.
        """
        check_speaker(speaker_id, self.speakers)
        frames = content.shape[0]
        device = self.window.device
        noise = torch.randn(1, frames * self.hop_length, generator=generator).to(device)
        with torch.inference_mode():
            heard = None if loudness is None else loudness[None].to(device)
            who = torch.tensor([speaker_id], device=device)
            wave: Tensor = self(content[None].to(device), f0_hz[None].to(device), noise, heard, who)[0]
        return wave

    def render_clips(self, clips: Sequence[Clip]) -> list[Tensor]:
        """See `libs.voice.synthesizer.ClipSynthesizer`. Raises InvalidInput for a speaker that is not there."""
        return render_clips(self, clips)
