"""Who tells a `lite` voice from real speech? Three small networks that look at spectra of three resolutions.

What a distance of magnitudes teaches is smooth: where several spectra would be right it prefers their mean. Judges that
learn to tell real from made (least squares, Mao et al. 2017, arXiv 1611.04076; spectra at several resolutions, Jang et
al. 2021, arXiv 2106.07889) make that mean expensive. They are needed while a voice learns and are no part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WINDOWS = (1024, 512, 256)
"""Samples of the transforms whose magnitudes are judged."""

CROP = 12_288
"""Samples of each item that are judged, half a second: what judges listen for is short, and they cost its length."""

CHANNELS = (16, 32, 32, 32)
STRIDES = ((3, 1), (3, 2), (2, 2), (2, 1))
SLOPE = 0.2
FLOOR = 1e-4
Judgement = tuple[Tensor, list[Tensor]]
"""Scores `[B, 1, F, T]`, 1 for real, and the feature maps below them."""


def crops(magnitudes: Tensor, places: Tensor) -> Tensor:
    """The part of `[B, bins, frames]` that is judged, `[B, bins, n]`; `places` `[B]` in 0…1 say where it lies."""
    _, bins, frames = magnitudes.shape
    count = min(frames, 4 * CROP // (2 * (bins - 1)))
    starts = (places * (frames - count)).round().long().tolist()
    return torch.stack([each[:, start : start + count] for each, start in zip(magnitudes, starts, strict=True)])


class Judge(nn.Module):
    """Convolutions over frequency and time of one spectrum, however many bins it has."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, *CHANNELS)
        self.layers = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], (5, 3), stride, padding=(2, 1)) for i, stride in enumerate(STRIDES)
        )
        self.last = nn.Conv2d(widths[-1], 1, 3, padding=1)

    def forward(self, magnitudes: Tensor) -> Judgement:
        """STFT magnitudes `[B, bins, frames]`."""
        # natural logs of speech lie between -9 and 4
        x = (torch.log(magnitudes + FLOOR)[:, None] + 4.0) / 4.0
        maps = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            maps.append(x)
        return self.last(x), maps


@dataclass(frozen=True)
class Verdict:
    """What the judges say of one part of a batch; scalars `[]`.

    `discriminator`: what they are to make small; `adversarial`, `feature`: what the voice is.
    """

    discriminator: Tensor
    adversarial: Tensor
    feature: Tensor


class Judges(nn.Module):
    """One judge for each of WINDOWS."""

    def __init__(self) -> None:
        super().__init__()
        self.judges = nn.ModuleList(Judge() for _ in WINDOWS)

    @torch.no_grad()
    def levels(self, real: Sequence[Tensor]) -> list[float]:
        """How large the feature maps of `real`, `[B, bins, frames]` each, are, map by map; see `forward`."""
        return [
            float(each.abs().mean()) for judge, true in zip(self.judges, real, strict=True) for each in judge(true)[1]
        ]

    def forward(self, real: Sequence[Tensor], made: Sequence[Tensor], levels: Sequence[float] | None = None) -> Verdict:
        """Magnitudes `[B, bins, frames]` of both sounds, one for each of WINDOWS.

        The three losses are means over the judges: (1 - D(real))² + D(made)², (1 - D(made))², and the distance of the
        feature maps over their size, a mean over the layers. Real maps are a goal and carry no gradient there.
        `levels`: their sizes; default: those of `real`. A part of a batch is given those of the whole.
        """
        taught: list[Tensor] = []
        fooled: list[Tensor] = []
        apart: list[Tensor] = []
        for judge, true, false in zip(self.judges, real, made, strict=True):
            scores, maps = judge(torch.cat((true, false)))
            of_true, of_false = scores.float().chunk(2)
            taught.append((1 - of_true).square().mean() + of_false.square().mean())
            fooled.append((1 - of_false).square().mean())
            for each in maps:
                wanted, got = each.float().chunk(2)
                wanted = wanted.detach()
                level = wanted.abs().mean() if levels is None else wanted.new_tensor(levels[len(apart)])
                apart.append((got - wanted).abs().mean() / level.clamp(min=1e-3))
        return Verdict(torch.stack(taught).mean(), torch.stack(fooled).mean(), torch.stack(apart).mean())
