"""What does a HuBERT (ContentVec) checkpoint in fairseq's format say about this speech, without fairseq?

Hsu et al. 2021, "HuBERT" (arXiv 2106.07447); network of `hubert_base`: post-norm transformer over a seven-layer
convolutional front end. Dropout, masking and the label embeddings play no part when features are taken.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.common.errors import InvalidInput, ModelFileRefused
from libs.voice.safe_load import FAIRSEQ_STUBS, load_tensors

SAMPLE_RATE = 16000
STRIDE = 320
RECEPTIVE_FIELD = 400
MAX_FILE_BYTES = 4 * 1024**3


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

    def forward(self, wave: Tensor) -> Tensor:
        x = wave.unsqueeze(1)
        for layer in self.conv_layers:
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

    def forward(self, x: Tensor) -> Tensor:
        taps = self.weight_v.shape[-1]
        norm = self.weight_v.norm(dim=(0, 1), keepdim=True)
        weight = self.weight_v * (self.weight_g / norm)
        out = functional.conv1d(x, weight, self.bias, padding=taps // 2, groups=self.groups)
        return functional.gelu(out[..., : x.shape[-1]])


class SelfAttention(nn.Module):
    """Multi-head attention of `[B, T, width]`; `mask` `[B, T]` is True where a frame is padding."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.q_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
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
        self.final_layer_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.self_attn_layer_norm(x + self.self_attn(x, mask))
        out: Tensor = self.final_layer_norm(x + self.fc2(functional.gelu(self.fc1(x))))
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

    def conv_features(self, wave: Tensor) -> Tensor:
        """`wave` float32 `[B, L]` at 16 kHz, L ≥ 400 → `[B, C, Th]`, Th = (L - 400) // 320 + 1."""
        features: Tensor = self.feature_extractor(wave)
        return features

    def hidden_states(self, wave: Tensor, until: int | None = None) -> list[Tensor]:
        """The state after each of the first `until` layers (default: all), each `[B, Th, width]`.

        All clips of a batch are taken as whole: `wave` `[B, L]`, the same L for each.
        """
        if self.config.normalise_input:
            wave = functional.layer_norm(wave, wave.shape[-1:])
        x = self.layer_norm(self.conv_features(wave).transpose(1, 2))
        if self.post_extract_proj is not None:
            x = self.post_extract_proj(x)
        states: list[Tensor] = self.encoder(x, None, until or self.config.layers)
        return states

    def features(self, wave: Tensor, layer: int, project: bool = False) -> Tensor:
        """State after transformer layer `layer` (from 1) `[B, Th, width]`, projected to `projected_width` if asked."""
        if not 1 <= layer <= self.config.layers:
            raise InvalidInput(f"layer is {layer}; this HuBERT has layers 1…{self.config.layers}.", field="layer")
        state = self.hidden_states(wave, layer)[-1]
        if not project:
            return state
        if self.final_proj is None:
            raise InvalidInput("This HuBERT has no final projection, which v1 voices need; use v2.", field="version")
        out: Tensor = self.final_proj(state)
        return out


def read_fairseq_checkpoint(path: Path) -> dict[str, Any]:
    """The plain contents of a fairseq checkpoint. No code of the file runs. Raises NotFound, ModelFileRefused."""
    document = load_tensors(path, stubs=FAIRSEQ_STUBS, max_bytes=MAX_FILE_BYTES)
    if not isinstance(document, dict) or not isinstance(document.get("model"), Mapping):
        raise ModelFileRefused(f"hubert: `{path.name}` has no entry `model`.", field="hubert")
    return document


def parse_conv_layers(text: str) -> tuple[tuple[int, int, int], ...]:
    """fairseq's `[(512,10,5)] + [(512,3,2)] * 4` as numbers. Read, never evaluated. Raises ModelFileRefused."""
    layers: list[tuple[int, int, int]] = []
    for term in text.replace(" ", "").split("+"):
        match = re.fullmatch(r"\[((?:\(\d{1,5},\d{1,4},\d{1,4}\),?)+)\](?:\*(\d{1,2}))?", term)
        if match is None:
            raise ModelFileRefused("hubert: conv_feature_layers is not of the form [(c,k,s)] * n + …", field="hubert")
        group = [tuple(map(int, found)) for found in re.findall(r"\((\d+),(\d+),(\d+)\)", match[1])]
        layers += [(c, k, s) for c, k, s in group] * int(match[2] or 1)
    if not 1 <= len(layers) <= 16:
        raise ModelFileRefused(f"hubert: {len(layers)} convolutions; 1…16 are accepted.", field="hubert")
    return tuple(layers)


def config_of(state: Mapping[str, Tensor], cfg: Any) -> HubertConfig:
    """The network's shape from the tensors; heads, groups and strides from `cfg` where it has them."""

    def section(name: str) -> Mapping[str, Any]:
        value = cfg.get(name) if isinstance(cfg, Mapping) else None
        return value if isinstance(value, Mapping) else {}

    model, task = section("model"), section("task")
    try:
        kernels: list[tuple[int, int]] = []
        while (weight := state.get(f"feature_extractor.conv_layers.{len(kernels)}.0.weight")) is not None:
            kernels.append((int(weight.shape[0]), int(weight.shape[2])))
        width = int(state["encoder.layer_norm.weight"].shape[0])
        tap_shape = state["encoder.pos_conv.0.weight_v"].shape
        ffn_width = int(state["encoder.layers.0.fc1.weight"].shape[0])
        layers = len({key.split(".")[2] for key in state if key.startswith("encoder.layers.")})
        projection = state.get("final_proj.weight")
        groups = width // int(tap_shape[1])
    except (KeyError, IndexError, ZeroDivisionError, AttributeError) as error:
        raise ModelFileRefused(f"hubert: a tensor of the network is missing or misshapen ({error}).") from error
    text = model.get("conv_feature_layers")
    conv = (
        parse_conv_layers(text)
        if isinstance(text, str)
        else tuple((c, k, 5 if i == 0 else 2) for i, (c, k) in enumerate(kernels))
    )
    if model.get("layer_norm_first") is True or model.get("extractor_mode", "default") != "default":
        raise ModelFileRefused("hubert: only the base form (post-norm, group norm) is supported, not `large`.")
    if model.get("conv_bias") is True:
        raise ModelFileRefused("hubert: a front end with bias is not supported.")
    if [(c, k) for c, k, _ in conv] != kernels:
        raise ModelFileRefused("hubert: conv_feature_layers and the stored convolutions differ.")
    heads = model.get("encoder_attention_heads", 12)
    if not isinstance(heads, int) or not 1 <= heads <= 64 or width % heads or not layers or not groups:
        raise ModelFileRefused(f"hubert: {heads!r} heads do not divide a width of {width}.", field="hubert")
    return HubertConfig(
        conv_layers=conv,
        width=width,
        ffn_width=ffn_width,
        layers=layers,
        heads=heads,
        position_taps=int(tap_shape[2]),
        position_groups=groups,
        projected_width=None if projection is None else int(projection.shape[0]),
        normalise_input=task.get("normalize") is True,
    )


def load_hubert(path: Path, device: torch.device | str = "cpu") -> Hubert:
    """HuBERT from a fairseq-format checkpoint (`hubert_base.pt`), eval mode, float32.

    Raises NotFound and ModelFileRefused.

    ContentVec's flag `task.normalize` is false; a checkpoint that sets it has its input normalised as a whole,
    to zero mean and unit variance (eps 1e-5), as the reference does when it extracts training features.
    """
    document = read_fairseq_checkpoint(path)
    unused = ("mask_emb", "label_embs_concat")
    state = {k: v for k, v in document["model"].items() if k not in unused and not k.startswith("target_glu")}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileRefused("hubert: entry `model` holds something that is no tensor.", field="hubert")
    config = config_of(state, document.get("cfg"))
    # Names and shapes are compared on an empty skeleton before memory is taken.
    with torch.device("meta"):
        expected = {key: tuple(value.shape) for key, value in Hubert(config).state_dict().items()}
    found = {key: tuple(value.shape) for key, value in state.items()}
    if expected != found:
        wrong = sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key))
        raise ModelFileRefused(
            f"hubert: {len(wrong)} tensors are missing, unknown or of another shape, first `{wrong[0]}`.",
            field="hubert",
        )
    network = Hubert(config)
    network.load_state_dict({key: value.float() for key, value in state.items()})
    return network.to(device).eval().requires_grad_(False)
