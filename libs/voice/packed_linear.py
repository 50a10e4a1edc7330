"""How do matrix products run at the speed of the processor? Weights packed once for oneDNN.

PyTorch gives float32 products to MKL, which on other makers' processors reaches less than half of what oneDNN does
(decision 0087). The packed form is float32 as before; with bfloat16 it is twice as fast again, and no longer the same
numbers. The two operators used here are those that `torch.compile` emits; without them the ordinary product is taken.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


def can_pack(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this PyTorch has oneDNN and its packed operators, and this processor takes them in `dtype`."""
    names = ("_linear_pointwise", "_reorder_linear_weight", "_convolution_pointwise", "_is_mkldnn_bf16_supported")
    built_in = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    if not built_in or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class PackedLinear(nn.Module):
    """`[…, in]` → `[…, out]` for inference on a CPU: weight, bias, and GELU (the exact form) if asked."""

    def __init__(
        self, weight: Tensor, bias: Tensor | None, *, gelu: bool = False, dtype: torch.dtype = torch.float32
    ) -> None:
        """`weight` `[out, in]`, `bias` `[out]`, float32. `dtype`: float32, or bfloat16 for speed at 3 digits."""
        super().__init__()
        self.gelu, self.dtype, self.packed = gelu, dtype, can_pack(dtype)
        weight = weight.detach().to(dtype)
        self.outputs = weight.shape[0]
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, None) if self.packed else weight
        self.bias = None if bias is None else bias.detach().to(dtype)

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self.packed:
            activation: tuple[Any, ...] = ("gelu", [], "none") if self.gelu else ("none", [], "")
            out = torch.ops.mkldnn._linear_pointwise(x.contiguous(), self.weight, self.bias, *activation)
        else:
            out = functional.linear(x, self.weight, self.bias)
            out = functional.gelu(out) if self.gelu else out
        result: Tensor = out.float()
        return result

    @classmethod
    def of(cls, linear: nn.Linear, *, gelu: bool = False, dtype: torch.dtype = torch.float32) -> PackedLinear:
        """The same product as `linear`, packed."""
        return cls(linear.weight, linear.bias, gelu=gelu, dtype=dtype)
