"""How is a HuBERT folder of the transformers library read? Its settings as JSON, its tensors under fairseq's names.

A folder holds `config.json`, the weights (`model.safetensors` or `pytorch_model.bin`) and, for models that want their
input normalised, `preprocessor_config.json`. Applio's ContentVec has this form, with `final_proj` beside the network.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.hubert_network import HubertConfig
from libs.voice.safe_load import load_tensors

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
MAX_FILE_BYTES = 4 * 1024**3
MAX_JSON_BYTES = 1024**2

_NAMES = (
    (r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight", r"feature_extractor.conv_layers.\1.0.weight"),
    (r"feature_extractor\.conv_layers\.0\.layer_norm\.(.+)", r"feature_extractor.conv_layers.0.2.\1"),
    (r"feature_projection\.layer_norm\.(.+)", r"layer_norm.\1"),
    (r"feature_projection\.projection\.(.+)", r"post_extract_proj.\1"),
    (r"encoder\.pos_conv_embed\.conv\.bias", r"encoder.pos_conv.0.bias"),
    (r"encoder\.pos_conv_embed\.conv\.(?:parametrizations\.weight\.original0|weight_g)", "encoder.pos_conv.0.weight_g"),
    (r"encoder\.pos_conv_embed\.conv\.(?:parametrizations\.weight\.original1|weight_v)", "encoder.pos_conv.0.weight_v"),
    (r"encoder\.layers\.(\d+)\.attention\.(.+)", r"encoder.layers.\1.self_attn.\2"),
    (r"encoder\.layers\.(\d+)\.layer_norm\.(.+)", r"encoder.layers.\1.self_attn_layer_norm.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.intermediate_dense\.(.+)", r"encoder.layers.\1.fc1.\2"),
    (r"encoder\.layers\.(\d+)\.feed_forward\.output_dense\.(.+)", r"encoder.layers.\1.fc2.\2"),
)


def weights_file(folder: Path) -> Path:
    """The weights in `folder`; safetensors when both forms are there. Raises NotFound."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise NotFound(f"hubert: the folder {folder.name} holds neither {' nor '.join(WEIGHTS)}", field="hubert")


def normalises(folder: Path) -> bool:
    """Whether the model wants its input with zero mean and unit variance (`do_normalize`); false without the file."""
    path = folder / "preprocessor_config.json"
    return path.is_file() and _json(path).get("do_normalize") is True


def read_folder(folder: Path) -> tuple[dict[str, Tensor], HubertConfig]:
    """Tensors under fairseq's names, and the network's shape. Raises NotFound, ModelFileRefused.

    Only the base form is read: group norm in the front end, no bias there, post-norm layers.
    """
    settings = _json(folder / "config.json")
    stored = _tensors(weights_file(folder))
    if not any(key.startswith("encoder.") for key in stored):
        # a model with a head keeps the network under a prefix
        stored = {key.removeprefix("hubert."): value for key, value in stored.items()}
    state = {_fairseq_name(key): value for key, value in stored.items() if key != "masked_spec_embed"}
    return state, _config(settings, state, normalises(folder))


def _fairseq_name(key: str) -> str:
    for pattern, replacement in _NAMES:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, replacement, key)
    return key


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ModelFileRefused(f"hubert: {path.name} has {path.stat().st_size} bytes; the limit is {MAX_FILE_BYTES}")
    if path.suffix == ".bin":
        state = load_tensors(path, max_bytes=MAX_FILE_BYTES)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise ModelFileRefused(f"hubert: {path.name} is not a plain dictionary of tensors.", field="hubert")
        return {str(key): value for key, value in state.items()}
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ModelFileRefused(f"hubert: {path.name} is no safetensors file: {error}", field="hubert") from error


def _config(settings: dict[str, Any], state: dict[str, Tensor], normalise: bool) -> HubertConfig:
    fixed = {
        "feat_extract_norm": "group",
        "conv_bias": False,
        "do_stable_layer_norm": False,
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
    }
    for name, wanted in fixed.items():
        if settings.get(name, wanted) != wanted:
            raise ModelFileRefused(
                f"hubert: config.json has {name} {settings[name]!r}; only the base form ({wanted!r}) is supported.",
                field="hubert",
            )
    base = HubertConfig()
    lists = [
        settings.get(name, [layer[i] for layer in base.conv_layers])
        for i, name in enumerate(("conv_dim", "conv_kernel", "conv_stride"))
    ]
    if (
        not all(isinstance(values, list) and 1 <= len(values) <= 16 for values in lists)
        or len({len(values) for values in lists}) != 1
    ):
        raise ModelFileRefused("hubert: conv_dim, conv_kernel and conv_stride do not name the same layers.")
    numbers = {
        "width": settings.get("hidden_size", base.width),
        "ffn_width": settings.get("intermediate_size", base.ffn_width),
        "layers": settings.get("num_hidden_layers", base.layers),
        "heads": settings.get("num_attention_heads", base.heads),
        "position_taps": settings.get("num_conv_pos_embeddings", base.position_taps),
        "position_groups": settings.get("num_conv_pos_embedding_groups", base.position_groups),
    }
    flat = [*numbers.values(), *(value for values in lists for value in values)]
    if not all(type(value) is int and 1 <= value <= 65536 for value in flat):
        raise ModelFileRefused("hubert: config.json has a size that is no whole number from 1 to 65536.")
    if numbers["width"] % numbers["heads"] or numbers["width"] % numbers["position_groups"] or numbers["layers"] > 64:
        raise ModelFileRefused(
            f"hubert: a width of {numbers['width']} does not fit {numbers['heads']} heads, "
            f"{numbers['position_groups']} groups, or {numbers['layers']} layers are too many.",
            field="hubert",
        )
    projection = state.get("final_proj.weight")
    return HubertConfig(
        conv_layers=tuple(zip(*lists, strict=True)),
        projected_width=None if projection is None or projection.ndim != 2 else int(projection.shape[0]),
        normalise_input=normalise,
        **numbers,
    )


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise NotFound(f"hubert: the folder {path.parent.name} has no {path.name}", field="hubert")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ModelFileRefused(f"hubert: {path.name} is too large for settings.", field="hubert")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"hubert: {path.name} is no JSON: {error}", field="hubert") from error
    if not isinstance(document, dict):
        raise ModelFileRefused(f"hubert: {path.name} is no JSON object.", field="hubert")
    return document
