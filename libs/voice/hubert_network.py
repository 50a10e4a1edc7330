"""What does HuBERT (ContentVec) compute? The network alone, with clips of several lengths in one batch.

Hsu et al. 2021, "HuBERT" (arXiv 2106.07447); network of `hubert_base`: post-norm transformer over a seven-layer
convolutional front end. Dropout, masking and the label embeddings play no part when features are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.common.errors import InvalidInput

SAMPLE_RATE = 16000
STRIDE = 320
RECEPTIVE_FIELD = 400


@dataclass(frozen=True)
class HubertConfig:
    """The few numbers that the network's shape needs. Defaults are the base model's."""

    conv_layers: tuple[tuple[int, int, int], ...] = ((512, 10, 5), *((512, 3, 2),) * 4, *((512, 2, 2),) * 2)
    width: int = 768
    ffn_width: int = 3072
    layers: int = 12
    heads: int = 12
    position_taps: int = 128
    position_groups: int = 16
    projected_width: int | None = 256
    normalise_input: bool = False


class FrontEnd(nn.Module):
    """`wave` `[B, L]` → `[B, C, Th]`: convolutions without bias, group norm after the first, exact GELU after each."""

    def __init__(self, layers: tuple[tuple[int, int, int], ...]) -> None:
        super().__init__()
        stack = []
        inputs = 1
        for i, (outputs, kernel, stride) in enumerate(layers):
            block: list[nn.Module] = [nn.Conv1d(inputs, outputs, kernel, stride, bias=False), nn.Identity()]
            if i == 0:
                block.append(nn.GroupNorm(outputs, outputs))
            stack.append(nn.Sequential(*block))
            inputs = outputs
        self.conv_layers = nn.ModuleList(stack)

    def forward(self, wave: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """`lengths`: the samples of each clip that count; frames after a clip's last one hold nothing of use."""
        if lengths is None:
            x = functional.gelu(self.conv_layers[0](wave.unsqueeze(1)))
        else:
            # group norm takes mean and variance over time, so the first layer sees each clip by itself
            clips = [self.conv_layers[0](w[None, None, :n])[0].T for w, n in zip(wave, lengths, strict=True)]
            x = functional.gelu(nn.utils.rnn.pad_sequence(clips, batch_first=True).transpose(1, 2))
        for layer in list(self.conv_layers)[1:]:
            x = functional.gelu(layer(x))
        return x


class PositionConvolution(nn.Module):
    """The positional convolution, weight-normed over its taps; the last frame of an even kernel is dropped."""

    def __init__(self, width: int, taps: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.weight_g = nn.Parameter(torch.ones(1, 1, taps))
        self.weight_v = nn.Parameter(torch.randn(width, width // groups, taps))
        self.bias = nn.Parameter(torch.zeros(width))

    def weight(self) -> Tensor:
        """The normed weight `[width, width / groups, taps]`."""
        normed: Tensor = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(0, 1), keepdim=True))
        return normed

    def forward(self, x: Tensor) -> Tensor:
        """x [b, t, c] → positions [b, t, c]."""
        taps = self.weight_v.shape[-1]
        out = functional.conv1d(x, self.weight(), self.bias, padding=taps // 2, groups=self.groups)
        return functional.gelu(out[..., : x.shape[-1]])


class SelfAttention(nn.Module):
    """Multi-head attention of `[B, T, width]`; `mask` `[B, T]` is True where a frame is padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [b, t, c] → [b, t, c]; what `mask` hides is not looked at."""
        b, t, width = x.shape
        q, k, v = (p(x).view(b, t, self.heads, -1).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        visible = None if mask is None else ~mask[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(b, t, width))
        return out


class TransformerLayer(nn.Module):
    """Attention and feed-forward, each followed by addition and layer norm."""

    def __init__(self, width: int, ffn_width: int, heads: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, ffn_width), nn.Linear(ffn_width, width)
        self.activation: nn.Module = nn.GELU()
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [b, t, c], mask as `SelfAttention` takes it → [b, t, c]."""
        x = self.self_attn_layer_norm(x + self.self_attn(x, mask))
        out: Tensor = self.final_layer_norm(x + self.fc2(self.activation(self.fc1(x))))
        return out


class TransformerEncoder(nn.Module):
    """Positions added, layer norm, then the layers."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.pos_conv = nn.ModuleList([PositionConvolution(config.width, config.position_taps, config.position_groups)])
        self.layer_norm = nn.LayerNorm(config.width)
        self.layers = nn.ModuleList(
            TransformerLayer(config.width, config.ffn_width, config.heads) for _ in range(config.layers)
        )

    def forward(self, x: Tensor, mask: Tensor | None, until: int) -> list[Tensor]:
        """x [b, t, c] → what each of the first `until` layers gave, [b, t, c]."""
        if mask is not None:
            x = x.masked_fill(mask[..., None], 0.0)
        x = self.layer_norm(x + self.pos_conv[0](x.transpose(1, 2)).transpose(1, 2))
        states = []
        for layer in self.layers[:until]:
            x = layer(x, mask)
            states.append(x)
        return states


class Hubert(nn.Module):
    """HuBERT in eval mode. Names of tensors are fairseq's."""

    def __init__(self, config: HubertConfig) -> None:
        super().__init__()
        self.config = config
        conv_width = config.conv_layers[-1][0]
        self.feature_extractor = FrontEnd(config.conv_layers)
        self.layer_norm = nn.LayerNorm(conv_width)
        self.post_extract_proj = nn.Linear(conv_width, config.width) if conv_width != config.width else None
        self.encoder = TransformerEncoder(config)
        self.final_proj = nn.Linear(config.width, config.projected_width) if config.projected_width else None

    def conv_features(self, wave: Tensor, lengths: Sequence[int] | None = None) -> Tensor:
        """`wave` float32 `[B, L]` at 16 kHz, L ≥ 400 → `[B, C, Th]`, Th = (L - 400) // 320 + 1."""
        features: Tensor = self.feature_extractor(wave, lengths)
        return features

    def hidden_states(
        self, wave: Tensor, until: int | None = None, lengths: Sequence[int] | None = None
    ) -> list[Tensor]:
        """The state after each of the first `until` layers (default: all), each `[B, Th, width]`.

        `wave` `[B, L]`; `lengths` tells the samples of each clip that count (400…L), the rest is padding. The first
        `(length - 400) // 320 + 1` frames of a clip are those that it has alone; the frames after them mean nothing.
        """
        if lengths is not None and all(length == wave.shape[-1] for length in lengths):
            lengths = None
        if self.config.normalise_input:
            wave = _normalised(wave, lengths)
        x = self.layer_norm(self.conv_features(wave, lengths).transpose(1, 2))
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        mask = None
        if lengths is not None:
            frames = torch.tensor([(length - RECEPTIVE_FIELD) // STRIDE + 1 for length in lengths], device=x.device)
            mask = torch.arange(x.shape[1], device=x.device)[None, :] >= frames[:, None]
        states: list[Tensor] = self.encoder(x, mask, until or self.config.layers)
        return states

    def features(self, wave: Tensor, layer: int, project: bool = False, lengths: Sequence[int] | None = None) -> Tensor:
        """State after transformer layer `layer` (from 1) `[B, Th, width]`, projected to `projected_width` if asked.

        `lengths` as in `hidden_states`. Raises InvalidInput for a layer or projection that the network lacks.
        """
        if not 1 <= layer <= self.config.layers:
            raise InvalidInput(f"layer is {layer}; this HuBERT has layers 1…{self.config.layers}.", field="layer")
        state = self.hidden_states(wave, layer, lengths)[-1]
        if not project:
            return state
        if self.final_proj is None:
            raise InvalidInput("This HuBERT has no final projection, which v1 voices need; use v2.", field="version")
        out: Tensor = self.final_proj(state)
        return out


def _normalised(wave: Tensor, lengths: Sequence[int] | None) -> Tensor:
    """Each clip with zero mean and unit variance over its own samples; padding is zero."""
    if lengths is None:
        return functional.layer_norm(wave, wave.shape[-1:])
    out = torch.zeros_like(wave)
    for row, (clip, length) in enumerate(zip(wave, lengths, strict=True)):
        out[row, :length] = functional.layer_norm(clip[:length], (length,))
    return out
