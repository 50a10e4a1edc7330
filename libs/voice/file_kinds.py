"""What sort of model file is this, by what it holds and not by its name?"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor

from libs.common.errors import ModelFileRefused

Kind = Literal["voice", "lite", "generator", "discriminator", "run", "hubert", "rmvpe", "unknown"]

_WHAT: dict[str, tuple[str, str]] = {
    "voice": ("an exported RVC voice", "Give a training checkpoint (`G_….pth`), or use the voice as it is."),
    "lite": ("a voice of the preset `lite`", "Use it as a voice."),
    "generator": ("a training checkpoint", "Extract a voice from it first, or give the exported voice."),
    "discriminator": (
        "a discriminator, which judges sound in training and cannot speak",
        "Give the G_ file beside it, or the exported voice.",
    ),
    "run": ("a checkpoint of this platform's trainer", "Let its training end, or export a voice from its run."),
    "hubert": ("a content encoder (HuBERT)", "Put it at HUBERT_PATH; a voice is another file."),
    "rmvpe": ("the pitch estimator RMVPE", "Put it at RMVPE_PATH; a voice is another file."),
    "unknown": ("none of the files that RVC, Applio or this platform writes", "Give an exported voice (`.pth`)."),
}


def kind_of(file: Any) -> Kind:
    """The sort of file that `load_tensors` read.

    `voice`: {"weight", "config", …} as RVC and Applio export. `lite`: our small voice. `generator`, `discriminator`:
    {"model": …}, a training checkpoint (`G_…`, `D_…`) or a pretrained base. `run`: our trainer's state.
    """
    if not isinstance(file, dict):
        return "unknown"
    if file.get("kind") == "lite":
        return "lite"
    if "weight" in file:
        return "voice"
    if "modules" in file and "optimizers" in file:
        return "run"
    model = file.get("model")
    names = _names(model if isinstance(model, dict) else file)
    if any(name.startswith("discriminators.") for name in names):
        return "discriminator"
    if any(name.startswith("feature_extractor.conv_layers.") for name in names):
        return "hubert"
    if any(name.startswith("unet.encoder.") for name in names):
        return "rmvpe"
    if isinstance(model, dict) and "emb_g.weight" in names:
        return "generator"
    return "unknown"


def wrong_kind(name: str, kind: Kind, *, wanted: str) -> ModelFileRefused:
    """The error for a readable file of another sort: what it is, what was `wanted`, and what to give instead."""
    what, action = _WHAT[kind]
    return ModelFileRefused(f"{name} is {what}; {wanted} is needed. {action}", actions=(action,))


def _names(state: dict[Any, Any]) -> set[str]:
    return {name for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
