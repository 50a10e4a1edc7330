"""Small HuBERT networks with random weights, and the folders that transformers would write of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from libs.voice.hubert import Hubert, HubertConfig

CONVOLUTIONS = ((24, 10, 5), *((24, 3, 2),) * 4, *((24, 2, 2),) * 2)


def small_hubert(seed: int = 0, **changes: Any) -> Hubert:
    """Width 32, 3 layers, HuBERT's own strides, weights large enough that every layer matters."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "conv_layers": CONVOLUTIONS,
        "width": 32,
        "ffn_width": 48,
        "layers": 3,
        "heads": 4,
        "position_taps": 16,
        "position_groups": 4,
        "projected_width": 8,
    }
    network = Hubert(HubertConfig(**(settings | changes)))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return network.eval().requires_grad_(False)


def transformers_state(state: dict[str, Tensor], *, newer: bool = True, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a network under the names that transformers gives them (`newer`: weight norm parametrised)."""
    parts = {
        ".self_attn_layer_norm.": ".layer_norm.",
        ".self_attn.": ".attention.",
        ".fc1.": ".feed_forward.intermediate_dense.",
        ".fc2.": ".feed_forward.output_dense.",
    }
    renamed: dict[str, Tensor] = {"masked_spec_embed": torch.zeros(4)}
    for key, value in state.items():
        name = key
        if name.startswith("feature_extractor.conv_layers."):
            name = name.replace(".0.2.", ".0.layer_norm.")
            name = name.removesuffix(".0.weight") + ".conv.weight" if name.endswith(".0.weight") else name
        elif name.startswith("layer_norm."):
            name = "feature_projection." + name
        elif name.startswith("post_extract_proj."):
            name = name.replace("post_extract_proj", "feature_projection.projection")
        elif name.startswith("encoder.pos_conv.0."):
            name = name.replace("pos_conv.0", "pos_conv_embed.conv")
            if newer:
                name = name.replace("weight_g", "parametrizations.weight.original0")
                name = name.replace("weight_v", "parametrizations.weight.original1")
        elif name.startswith("encoder.layers."):
            for ours, theirs in parts.items():
                if ours in name:
                    name = name.replace(ours, theirs)
                    break
        renamed[name if name.startswith("final_proj") else prefix + name] = value.contiguous()
    return renamed


def write_folder(
    folder: Path,
    network: Hubert,
    *,
    form: str = "safetensors",
    newer: bool = True,
    prefix: str = "",
    do_normalize: bool | None = None,
    **changes: Any,
) -> Path:
    """`network` as a transformers folder; `changes` alter `config.json`."""
    config = network.config
    settings = {
        "architectures": ["HubertModelWithFinalProj"],
        "hidden_size": config.width,
        "intermediate_size": config.ffn_width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "conv_dim": [layer[0] for layer in config.conv_layers],
        "conv_kernel": [layer[1] for layer in config.conv_layers],
        "conv_stride": [layer[2] for layer in config.conv_layers],
        "num_conv_pos_embeddings": config.position_taps,
        "num_conv_pos_embedding_groups": config.position_groups,
        "conv_bias": False,
        "feat_extract_norm": "group",
        "do_stable_layer_norm": False,
        "hidden_act": "gelu",
        "classifier_proj_size": config.projected_width,
    } | changes
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings))
    state = transformers_state(network.state_dict(), newer=newer, prefix=prefix)
    if form == "safetensors":
        save_file(state, folder / "model.safetensors")
    else:
        torch.save(state, folder / "pytorch_model.bin")
    if do_normalize is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    return folder
