"""How does HuBERT run faster on a CPU with the same numbers? Every product packed, convolutions as products.

The front end keeps time in rows: a convolution of kernel k and stride s is one product with k neighbouring rows side by
side, `[T, C]` → windows `[(T - k) // s + 1, k * C]`, and GELU happens while the result is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.hubert_network import FrontEnd, Hubert, PositionConvolution
from libs.voice.packed_linear import PackedLinear


class RowFrontEnd(nn.Module):
    """The same as FrontEnd, in rows: `wave` `[B, L]` → `[B, C, Th]`."""

    def __init__(self, plain: FrontEnd, dtype: torch.dtype) -> None:
        super().__init__()
        layers: list[Any] = list(plain.conv_layers)
        first, rest = layers[0], layers[1:]
        self.first, self.norm = first[0], first[2]
        self.windows = [(layer[0].kernel_size[0], layer[0].stride[0]) for layer in rest]
        self.products = nn.ModuleList(
            PackedLinear(layer[0].weight.permute(0, 2, 1).flatten(1), None, gelu=True, dtype=dtype) for layer in rest
        )

    def forward(self, wave: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """As the front end that it stands for: waves [b, l] at 16 kHz."""
        if lengths is None:
            lengths = [wave.shape[-1]] * len(wave)
        clips = [self._first(clip[:length]) for clip, length in zip(wave, lengths, strict=True)]
        x = nn.utils.rnn.pad_sequence(clips, batch_first=True)
        for (kernel, stride), product in zip(self.windows, self.products, strict=True):
            batch, time, width = x.shape
            count = (time - kernel) // stride + 1
            x = product(x.as_strided((batch, count, kernel * width), (time * width, stride * width, 1)))
        return x.transpose(1, 2)

    def _first(self, clip: Tensor) -> Tensor:
        """Convolution, group norm over the whole clip, GELU: `[L]` → `[T, C]`."""
        rows = clip.unfold(0, self.first.kernel_size[0], self.first.stride[0])
        y = functional.linear(rows, self.first.weight[:, 0])
        # torch.var over the rows takes ten times as long as two plain means
        y -= y.mean(dim=0)
        scale = self.norm.weight * torch.rsqrt(y.square().mean(dim=0) + self.norm.eps)
        return functional.gelu(torch.addcmul(self.norm.bias, y, scale))


class FoldedPosition(nn.Module):
    """PositionConvolution with its weight norm worked out once."""

    def __init__(self, plain: PositionConvolution) -> None:
        super().__init__()
        self.groups = plain.groups
        self.weight = plain.weight().detach()
        self.bias = plain.bias

    def forward(self, x: Tensor) -> Tensor:
        """As `PositionConvolution.forward`: [b, t, c] → [b, t, c]."""
        taps = self.weight.shape[-1]
        out = functional.conv1d(x, self.weight, self.bias, padding=taps // 2, groups=self.groups)
        return functional.gelu(out[..., : x.shape[-1]])


def pack(network: Hubert, dtype: torch.dtype = torch.float32) -> Hubert:
    """`network` itself, changed for inference on a CPU; its tensors no longer have fairseq's names.

    float32 gives the same features to about 1e-5; bfloat16 keeps three digits (measured in docs/benchmarks.md).
    """
    parts: Any = network
    parts.feature_extractor = RowFrontEnd(network.feature_extractor, dtype)
    if parts.post_extract_proj is not None:
        parts.post_extract_proj = PackedLinear.of(parts.post_extract_proj, dtype=dtype)
    parts.encoder.pos_conv[0] = FoldedPosition(parts.encoder.pos_conv[0])
    for layer in parts.encoder.layers:
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(layer.self_attn, name, PackedLinear.of(getattr(layer.self_attn, name), dtype=dtype))
        layer.fc1 = PackedLinear.of(layer.fc1, gelu=True, dtype=dtype)
        layer.activation = nn.Identity()
        layer.fc2 = PackedLinear.of(layer.fc2, dtype=dtype)
    if parts.final_proj is not None:
        parts.final_proj = PackedLinear.of(parts.final_proj, dtype=dtype)
    return network
