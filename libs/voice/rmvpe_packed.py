"""How does RMVPE run faster on a CPU with the same numbers? Norms folded, convolutions packed, time both ways at once.

The recurrent layer takes its steps forwards and backwards side by side, because a step of few clips is so small that
calling it costs more than computing it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from libs.voice.packed_convolution import PackedConvolution
from libs.voice.packed_linear import PackedLinear
from libs.voice.rmvpe_network import BiGru, DecoderLayer, ResidualBlock, RmvpeNetwork, fold_norms


class PackedBlock(nn.Module):
    """ResidualBlock with its norms folded in."""

    def __init__(self, folded: ResidualBlock, dtype: torch.dtype) -> None:
        super().__init__()
        parts: Any = folded.conv
        self.first = PackedConvolution(parts[0], relu=True, dtype=dtype)
        self.second = PackedConvolution(parts[3], relu=True, dtype=dtype)
        shortcut: Any = folded.shortcut
        is_same = isinstance(shortcut, nn.Identity)
        self.shortcut: nn.Module = shortcut if is_same else PackedConvolution(shortcut, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """As `ResidualBlock.forward`: [b, c_in, t, f] → [b, c_out, t, f]."""
        out: Tensor = self.second(self.first(x))
        out += self.shortcut(x)
        return out


class PackedGru(nn.Module):
    """BiGru in float32: `[B, T, inputs]` → `[B, T, 2 * hidden]`.

    What comes from the input is one product for both directions; what comes from the step before is one for both too.
    """

    def __init__(self, plain: BiGru) -> None:
        super().__init__()
        gru = plain.gru
        self.hidden = gru.hidden_size

        def both(name: str) -> list[Tensor]:
            return [getattr(gru, f"{name}_l0{way}").detach() for way in ("", "_reverse")]

        self.inputs = PackedLinear(torch.cat(both("weight_ih")), torch.cat(both("bias_ih")))
        self.weight = torch.stack([w.T for w in both("weight_hh")]).contiguous()
        self.bias = torch.stack(both("bias_hh"))[:, None]

    @torch.inference_mode()
    def forward(self, x: Tensor) -> Tensor:
        """As `BiGru.forward`: [b, t, features] → [b, t, 2 * hidden]."""
        batch, time, _ = x.shape
        given = self.inputs(x.float()).view(batch, time, 2, 3 * self.hidden)
        # [T, 2, B, 3 * hidden]: step t of the way forwards beside step T - 1 - t of the way backwards
        given = torch.stack((given[:, :, 0], given[:, :, 1].flip(1))).permute(2, 0, 1, 3).contiguous()
        out = given.new_empty(time, 2, batch, self.hidden)
        state = given.new_zeros(2, batch, self.hidden)
        for step in range(time):
            own = torch.baddbmm(self.bias, state, self.weight)
            gates = (given[step, ..., : 2 * self.hidden] + own[..., : 2 * self.hidden]).sigmoid_()
            reset, update = gates[..., : self.hidden], gates[..., self.hidden :]
            fresh = torch.addcmul(given[step, ..., 2 * self.hidden :], reset, own[..., 2 * self.hidden :]).tanh_()
            state = torch.lerp(fresh, state, update, out=out[step])
        return torch.cat((out[:, 0], out[:, 1].flip(0)), dim=-1).transpose(0, 1)


class AsFloat32(nn.Module):
    """What comes out of half-precision convolutions, for layers that stay in float32."""

    def forward(self, x: Tensor) -> Tensor:
        """float16 of any shape → the same as float32."""
        return x.float()


def pack(network: RmvpeNetwork, dtype: torch.dtype = torch.float32) -> RmvpeNetwork:
    """`network` itself for inference on a CPU; its tensors no longer have the public file's names.

    float32 gives the same salience to 1e-6. bfloat16 is for the convolutions alone: the norm of the input, the
    recurrent layer and what follows stay in float32.
    """
    parts: Any = fold_norms(network).requires_grad_(False)
    for stack in (*parts.unet.encoder.layers, *parts.unet.intermediate.layers):
        for i, block in enumerate(stack.conv):
            stack.conv[i] = PackedBlock(block, dtype)
    layer: DecoderLayer
    for layer in parts.unet.decoder.layers:
        up: Any = layer.conv1
        layer.conv1 = nn.Sequential(PackedConvolution(up[0], relu=True, dtype=dtype))
        for i, block in enumerate(layer.conv2):
            layer.conv2[i] = PackedBlock(block, dtype)  # type: ignore[arg-type]
    parts.unet.encoder.bn = _InputNorm(parts.unet.encoder.bn, dtype)
    parts.cnn = nn.Sequential(PackedConvolution(parts.cnn, dtype=dtype), AsFloat32())
    parts.fc[0] = PackedGru(parts.fc[0])
    parts.fc[1] = PackedLinear.of(parts.fc[1])
    return network


class _InputNorm(nn.Module):
    """The encoder's batch norm as one product and sum, laid out for the convolutions."""

    def __init__(self, plain: nn.BatchNorm2d, dtype: torch.dtype) -> None:
        super().__init__()
        self.plain, self.dtype = plain, dtype

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(x).to(self.dtype, memory_format=torch.channels_last)  # type: ignore[no-any-return]
