"""What does the built-in content encoder compute? Log-mel in, phone posteriors out.

The network of the `lite` trial: convolution with stride 2, then residual blocks of a wide depthwise convolution and a
two-layer perceptron (the block of ConvNeXt, Liu et al. 2022, arXiv 2201.03545, in one dimension). Time is framed as in
HuBERT: frame i is centred on sample 320 i + 200, so features of both encoders lie on one grid.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.packed_linear import PackedLinear

SAMPLE_RATE = 16000
MEL_HOP = 160
WINDOW = 400
FFT = 512
QUIETEST = -12.0
"""Mean log power per band under which a recording counts as silence, and is not raised to the level of speech: about
-60 dBFS."""


@dataclass(frozen=True)
class ContentConfig:
    """Dimensions of the network; `classes` is the number of phones it tells apart.

    `finer`: further outputs that tell how a phone is spoken, of mean 0 and variance 1 in each frame (version 1: none).
    """

    bands: int = 80
    width: int = 256
    hidden: int = 768
    blocks: int = 8
    kernel: int = 9
    classes: int = 42
    floor: float = -6.0
    finer: int = 0

    def as_dict(self) -> dict[str, float | int]:
        """For the metadata of a weights file; what version 1 did not have is named only where it is used."""
        return {name: value for name, value in asdict(self).items() if name != "finer" or value}

    @property
    def context(self) -> int:
        """Frames of 20 ms on each side that one output depends on."""
        return self.blocks * (self.kernel // 2) + 1


def mel_filters(bands: int, fft: int = FFT, rate: int = SAMPLE_RATE, low: float = 50.0, high: float = 7600.0) -> Tensor:
    """Triangular filters `[bands, fft // 2 + 1]`, evenly spaced on the HTK mel scale 2595 log10(1 + f / 700)."""
    bottom, top = (2595.0 * math.log10(1.0 + edge / 700.0) for edge in (low, high))
    edges = 700.0 * (10.0 ** (torch.linspace(bottom, top, bands + 2, dtype=torch.float64) / 2595.0) - 1.0)
    frequencies = torch.linspace(0.0, rate / 2, fft // 2 + 1, dtype=torch.float64)
    rising = (frequencies - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - frequencies) / (edges[2:] - edges[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0.0).float()


def log_mel(wave: Tensor, filters: Tensor) -> Tensor:
    """`wave`: float32 `[T]` at 16 kHz, T ≥ 400 → natural log of mel power `[bands, (T - 400) // 160 + 1]`.

    Frame j lies on samples 160 j … 160 j + 400 (Hann), without padding.
    """
    frames = wave.unfold(0, WINDOW, MEL_HOP) * torch.hann_window(WINDOW, device=wave.device)
    power = torch.fft.rfft(frames, n=FFT).abs().square()
    return torch.log(filters @ power.T + 1e-10)


def level_of_speech(mel: Tensor) -> Tensor:
    """Mean of log-mels `[…, bands, T]` over the frames that are not silence → `[…, bands, 1]`.

    Not silence: at most 5 nepers of power under the loudest. Subtracting it removes loudness, microphone and a part of
    the speaker; how much of a recording is silent says nothing about these, so silence is left out. Whole silence
    stays silence: the mean over the bands is at least `QUIETEST`.
    """
    loudness = mel.mean(dim=-2, keepdim=True)
    active = (loudness >= loudness.amax(dim=-1, keepdim=True) - 5.0).to(mel.dtype)
    level = (mel * active).sum(dim=-1, keepdim=True) / active.sum(dim=-1, keepdim=True)
    return level + (QUIETEST - level.mean(dim=-2, keepdim=True)).clamp(min=0.0)


class Block(nn.Module):
    """Depthwise convolution over time, layer norm, perceptron, residual: `[B, width, T]` → the same shape."""

    def __init__(self, width: int, hidden: int, kernel: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, hidden)
        self.activation: nn.Module = nn.GELU()
        self.reduce = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).transpose(1, 2))
        added: Tensor = self.reduce(self.dropout(self.activation(self.expand(y))))
        return x + added.transpose(1, 2)


class ContentNetwork(nn.Module):
    """Normalised log-mel `[B, bands, M]` at 10 ms → `[B, classes + finer, (M - 1) // 2 + 1]` at 20 ms.

    The first `classes` rows are phone logits, the `finer` ones after them features as they are.
    """

    def __init__(self, config: ContentConfig, dropout: float = 0.0) -> None:
        super().__init__()
        self.config = config
        self.entry = nn.Conv1d(config.bands, config.width, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(
            Block(config.width, config.hidden, config.kernel, dropout) for _ in range(config.blocks)
        )
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, config.classes)
        self.finer = nn.Linear(config.width, config.finer) if config.finer else None

    def forward(self, mel: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """`lengths`: frames of 10 ms of each clip that count; what stands after them changes nothing before them."""
        mel = mel.clamp(min=self.config.floor)
        if lengths is None:
            x = self.entry(mel)
            for block in self.blocks:
                x = block(x)
        else:
            # each convolution has to see zeros behind a clip, as it does when the clip is alone
            counts = torch.tensor(lengths, device=mel.device)[:, None, None]
            x = self.entry(mel * (torch.arange(mel.shape[-1], device=mel.device) < counts))
            inside = torch.arange(x.shape[-1], device=mel.device) < (counts - 1) // 2 + 1
            for block in self.blocks:
                x = block(x * inside)
        last = self.norm(x.transpose(1, 2))
        out: Tensor = self.head(last)
        if self.finer is not None:
            finer = functional.layer_norm(self.finer(last).float(), (self.config.finer,))
            out = torch.cat((out.float(), finer), dim=2)
        return out.transpose(1, 2)


def pack(network: ContentNetwork, dtype: torch.dtype = torch.float32) -> ContentNetwork:
    """`network` itself with its products packed for a CPU (see packed_linear): in float32 the same to about 1e-6."""
    block: Any
    for block in network.blocks:
        block.expand = PackedLinear.of(block.expand, gelu=True, dtype=dtype)
        block.activation = nn.Identity()
        block.reduce = PackedLinear.of(block.reduce, dtype=dtype)
    return network
