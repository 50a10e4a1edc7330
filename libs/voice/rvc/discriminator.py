"""Who tells real from made? One scale and several period discriminators (HiFi-GAN): eight periods in v2, six in v1."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.voice.rvc.layers import LRELU_SLOPE, NormedConv1d, NormedConv2d

PERIODS = {"v1": (2, 3, 5, 7, 11, 17), "v2": (2, 3, 5, 7, 11, 17, 23, 37)}
Judgement = tuple[Tensor, list[Tensor]]
"""Scores [b, n], and the feature maps of every layer with the last one included."""


class ScaleDiscriminator(nn.Module):
    """Judges the wave as it is. `narrow` divides the channels (1 is RVC's own size)."""

    def __init__(self, narrow: int = 1) -> None:
        super().__init__()
        c = [16, 64, 256, 1024, 1024, 1024]
        c = [max(width // narrow, 4) for width in c]
        groups = [4, 16, 64, 256]
        groups = [max(count // narrow, 1) for count in groups]
        self.convs = nn.ModuleList(
            [
                NormedConv1d(1, c[0], 15, 1, padding=7),
                NormedConv1d(c[0], c[1], 41, 4, groups=groups[0], padding=20),
                NormedConv1d(c[1], c[2], 41, 4, groups=groups[1], padding=20),
                NormedConv1d(c[2], c[3], 41, 4, groups=groups[2], padding=20),
                NormedConv1d(c[3], c[4], 41, 4, groups=groups[3], padding=20),
                NormedConv1d(c[4], c[5], 5, 1, padding=2),
            ]
        )
        self.conv_post = NormedConv1d(c[5], 1, 3, 1, padding=1)

    def forward(self, wave: Tensor) -> Judgement:
        """wave [b, 1, t]."""
        return _judge(self.convs, self.conv_post, wave)


class PeriodDiscriminator(nn.Module):
    """Judges the wave folded into rows of `period` samples."""

    def __init__(self, period: int, narrow: int = 1) -> None:
        super().__init__()
        self.period = period
        c = [1] + [max(width // narrow, 4) for width in (32, 128, 512, 1024, 1024)]
        strides = (3, 3, 3, 3, 1)
        self.convs = nn.ModuleList(
            NormedConv2d(c[i], c[i + 1], (5, 1), (stride, 1), padding=(2, 0)) for i, stride in enumerate(strides)
        )
        self.conv_post = NormedConv2d(c[-1], 1, (3, 1), 1, padding=(1, 0))

    def forward(self, wave: Tensor) -> Judgement:
        """wave [b, 1, t]; t is padded by reflection to a multiple of the period."""
        missing = -wave.shape[2] % self.period
        if missing:
            wave = F.pad(wave, (0, missing), "reflect")
        return _judge(self.convs, self.conv_post, wave.view(*wave.shape[:2], -1, self.period))


class Discriminators(nn.Module):
    """All judges of a version; each call judges one batch of waves [b, 1, t]."""

    def __init__(self, version: str, narrow: int = 1) -> None:
        super().__init__()
        self.discriminators = nn.ModuleList([ScaleDiscriminator(narrow)])
        self.discriminators.extend(PeriodDiscriminator(period, narrow) for period in PERIODS[version])

    def forward(self, wave: Tensor) -> list[Judgement]:
        return [judge(wave) for judge in self.discriminators]

    def pair(self, real: Tensor, made: Tensor) -> tuple[list[Judgement], list[Judgement]]:
        """Both judged in one pass of twice the batch: the same numbers, better used hardware."""
        b = real.shape[0]
        both = self(torch.cat([real, made]))
        first = [(scores[:b], [m[:b] for m in maps]) for scores, maps in both]
        second = [(scores[b:], [m[b:] for m in maps]) for scores, maps in both]
        return first, second


def _judge(convs: nn.ModuleList, post: nn.Module, x: Tensor) -> Judgement:
    maps = []
    for conv in convs:
        x = F.leaky_relu(conv(x), LRELU_SLOPE)
        maps.append(x)
    x = post(x)
    maps.append(x)
    return x.flatten(1), maps
