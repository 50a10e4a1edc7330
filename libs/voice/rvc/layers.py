"""Which building blocks do the RVC networks share?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Noise = Callable[[Tensor], Tensor]
"""Standard normal values in the shape, type and place of the given tensor."""

LRELU_SLOPE = 0.1


def noise_from(generator: torch.Generator | None) -> Noise:
    """Noise drawn from `generator` (on its own device, then moved), or from torch's global stream."""

    def draw(like: Tensor) -> Tensor:
        device = generator.device if generator is not None else like.device
        return torch.randn(like.shape, generator=generator, device=device, dtype=torch.float32).to(like)

    return draw


def no_noise(like: Tensor) -> Tensor:
    """Zeros in the shape of `like`: every draw of a deterministic run."""
    return torch.zeros_like(like)


class _WeightNorm:
    """Weight normalisation (Salimans & Kingma 2016) in RVC's names and order: bias, weight_g, weight_v.

    The gain has one value per index of dimension 0. `fold` makes one tensor of both for faster inference.
    """

    weight_g: nn.Parameter
    weight_v: nn.Parameter
    _folded: Tensor | None

    def _split(self) -> None:
        module: Any = self
        weight = module._parameters.pop("weight")
        module.weight_g = nn.Parameter(torch.norm_except_dim(weight.detach(), 2, 0))
        module.weight_v = nn.Parameter(weight.detach())
        module._folded = None

    def weights(self) -> Tensor:
        if self._folded is not None:
            return self._folded
        weight: Tensor = torch._weight_norm(self.weight_v, self.weight_g, 0)
        return weight

    def fold(self) -> None:
        """Compute the weight once and for all; only for inference."""
        self._folded = torch._weight_norm(self.weight_v, self.weight_g, 0).detach()


class NormedConv1d(_WeightNorm, nn.Conv1d):
    """Conv1d with weight norm."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        nn.Conv1d.__init__(self, *arguments, **named)
        self._split()

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c_in, t] → [b, c_out, t']."""
        y: Tensor = self._conv_forward(x, self.weights(), self.bias)
        return y


class NormedConv2d(_WeightNorm, nn.Conv2d):
    """Conv2d with weight norm."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        nn.Conv2d.__init__(self, *arguments, **named)
        self._split()

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c_in, h, w] → [b, c_out, h', w']."""
        y: Tensor = self._conv_forward(x, self.weights(), self.bias)
        return y


class NormedConvTranspose1d(_WeightNorm, nn.ConvTranspose1d):
    """ConvTranspose1d with weight norm; the gain is per input channel, as dimension 0 is that."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        nn.ConvTranspose1d.__init__(self, *arguments, **named)
        self._split()

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """x [b, c_in, t] → [b, c_out, t * stride]."""
        return F.conv_transpose1d(
            x,
            self.weights(),
            self.bias,
            self.stride,
            self.padding,  # type: ignore[arg-type] # never text here
        )


def fold_weight_norm(module: nn.Module) -> None:
    """Fold every weight-normed layer in `module` for inference."""
    for layer in module.modules():
        if isinstance(layer, _WeightNorm):
            layer.fold()


class ChannelNorm(nn.Module):
    """Layer norm over the channels of [b, c, t]; its parameters are called gamma and beta."""

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.gamma = nn.Parameter(torch.ones(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """x [b, c, t] → [b, c, t]."""
        return F.layer_norm(x.transpose(1, -1), self.gamma.shape, self.gamma, self.beta, self.eps).transpose(1, -1)


class WaveNet(nn.Module):
    """Gated convolutions with a global condition: [b, c, t], mask [b, 1, t], g [b, gin, 1] → [b, c, t]."""

    def __init__(
        self, channels: int, kernel: int, dilation_rate: int, layers: int, gin: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.in_layers = nn.ModuleList()
        self.res_skip_layers = nn.ModuleList()
        self.drop = nn.Dropout(dropout)
        for i in range(layers):
            dilation = dilation_rate**i
            padding = (kernel * dilation - dilation) // 2
            self.in_layers.append(NormedConv1d(channels, 2 * channels, kernel, dilation=dilation, padding=padding))
            out = 2 * channels if i < layers - 1 else channels
            self.res_skip_layers.append(NormedConv1d(channels, out, 1))
        self.cond_layer = NormedConv1d(gin, 2 * channels * layers, 1)

    def forward(self, x: Tensor, mask: Tensor, g: Tensor) -> Tensor:
        """x [b, c, t], mask [b, 1, t], speaker g [b, gin, 1] → [b, c, t]."""
        channels = self.channels
        conditions = self.cond_layer(g).split(2 * channels, dim=1)
        skip: Tensor | None = None
        for i, (conv, res_skip) in enumerate(zip(self.in_layers, self.res_skip_layers, strict=True)):
            mixed = conv(x) + conditions[i]
            gated = self.drop(torch.tanh(mixed[:, :channels]) * torch.sigmoid(mixed[:, channels:]))
            out = res_skip(gated)
            if i < len(self.in_layers) - 1:
                x = (x + out[:, :channels]) * mask
                out = out[:, channels:]
            skip = out if skip is None else skip + out
        assert skip is not None
        return skip * mask


def sequence_mask(lengths: Tensor, longest: int) -> Tensor:
    """lengths int64 [b] → bool [b, longest], true where a frame is real."""
    return torch.arange(longest, device=lengths.device)[None, :] < lengths[:, None]


def take_segments(x: Tensor, starts: Tensor, length: int) -> Tensor:
    """x [b, …, t], starts int64 [b] → [b, …, length], each item from its own start."""
    return torch.stack([x[i, ..., s : s + length] for i, s in enumerate(starts.tolist())])
