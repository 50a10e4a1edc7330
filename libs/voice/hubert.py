"""Where does a HuBERT (ContentVec) come from? A file in fairseq's format, without fairseq, or a transformers folder.

Nothing in these files is run: tensors come through `safe_load`, settings are read as data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.voice.hubert_network import RECEPTIVE_FIELD, SAMPLE_RATE, STRIDE, Hubert, HubertConfig
from libs.voice.safe_load import FAIRSEQ_STUBS, load_tensors

__all__ = [
    "RECEPTIVE_FIELD",
    "SAMPLE_RATE",
    "STRIDE",
    "Hubert",
    "HubertConfig",
    "build",
    "config_of",
    "load_hubert",
    "parse_conv_layers",
    "read_fairseq_checkpoint",
]

MAX_FILE_BYTES = 4 * 1024**3


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
    """HuBERT from a fairseq-format checkpoint (`hubert_base.pt`) or a transformers folder, eval mode, float32.

    Raises NotFound and ModelFileRefused.

    ContentVec's flag `task.normalize` is false; a checkpoint that sets it has its input normalised as a whole,
    to zero mean and unit variance (eps 1e-5), as the reference does when it extracts training features. In a folder
    the flag is `do_normalize` of `preprocessor_config.json`.
    """
    if path.is_dir():
        from libs.voice.hubert_transformers import read_folder

        state, config = read_folder(path)
        return build(state, config).to(device)
    document = read_fairseq_checkpoint(path)
    unused = ("mask_emb", "label_embs_concat")
    state = {k: v for k, v in document["model"].items() if k not in unused and not k.startswith("target_glu")}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelFileRefused("hubert: entry `model` holds something that is no tensor.", field="hubert")
    return build(state, config_of(state, document.get("cfg"))).to(device)


def build(state: Mapping[str, Tensor], config: HubertConfig) -> Hubert:
    """The network with the tensors of `state`, named as fairseq names them. Raises ModelFileRefused on a misfit."""
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
    return network.eval().requires_grad_(False)
