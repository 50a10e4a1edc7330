"""How do convolutions run at the speed of the processor? Weights packed once for oneDNN, the rectifier done on the way.

PyTorch brings a convolution's weights into oneDNN's order at every call, and leaves small ones to slower code of its
own. Here they are packed once, as `packed_linear` does for products, through the operators that `torch.compile` emits;
without them the ordinary convolution is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.packed_linear import can_pack


class PackedConvolution(nn.Module):
    """A 2-D convolution for inference on a CPU, with its ReLU if asked: `[B, in, H, W]` → `[B, out, H', W']`.

    Input and output have `dtype`: float32 gives the same numbers to rounding, bfloat16 keeps three digits.
    """

    def __init__(
        self,
        plain: nn.Conv2d | nn.ConvTranspose2d,
        *,
        relu: bool = False,
        dtype: torch.dtype = torch.float32,
        packed: bool | None = None,
    ) -> None:
        """`plain`: a convolution without groups. `packed`: false takes the ordinary operators; None: if it can."""
        super().__init__()
        self.relu, self.packed = relu, can_pack(dtype) if packed is None else packed
        self.transposed = isinstance(plain, nn.ConvTranspose2d)
        self.padding, self.stride, self.dilation = (
            [int(side) for side in sides] for sides in (plain.padding, plain.stride, plain.dilation)
        )
        self.output_padding = [int(side) for side in plain.output_padding]
        self.bias = None if plain.bias is None else plain.bias.detach().to(dtype)
        weight = plain.weight.detach().to(dtype)
        self.weight = self._reordered(weight) if self.packed else weight

    def _reordered(self, weight: Tensor) -> Tensor:
        operators: Any = torch.ops.mkldnn
        reordered: Tensor = (
            operators._reorder_convolution_transpose_weight(
                weight, self.padding, self.output_padding, self.stride, self.dilation, 1, None
            )
            if self.transposed
            else operators._reorder_convolution_weight(weight, self.padding, self.stride, self.dilation, 1, None)
        )
        return reordered

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        out: Tensor
        if not self.packed:
            out = (
                functional.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding, self.output_padding)
                if self.transposed
                else functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation)
            )
            return functional.relu_(out) if self.relu else out
        operators: Any = torch.ops.mkldnn
        activation: tuple[Any, ...] = ("relu" if self.relu else "none", [], "")
        if self.transposed:
            out = operators._convolution_transpose_pointwise(
                x, self.weight, self.bias, self.padding, self.output_padding, self.stride, self.dilation, 1, *activation
            )
        else:
            out = operators._convolution_pointwise(
                x, self.weight, self.bias, self.padding, self.stride, self.dilation, 1, *activation
            )
        return out
