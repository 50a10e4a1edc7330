"""What is in this model file? Read without building a network."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.common.storable import storable_text
from libs.voice.artefact import VoiceFile, is_safetensors, read_voice, speakers_of, voice_of
from libs.voice.file_kinds import kind_of, wrong_kind
from libs.voice.rvc.checkpoints import TrainingCheckpoint, checkpoint_of
from libs.voice.rvc.config import NetworkConfig
from libs.voice.rvc.files import config_of_export
from libs.voice.rvc.shapes import config_from_shapes
from libs.voice.safe_load import MAX_TRAINING_BYTES, load_tensors

_PRECISIONS = {torch.float16: "fp16", torch.float32: "fp32", torch.bfloat16: "bf16"}
MAX_TEXT, MAX_NAME, MAX_NAMES = 200, 100, 64
"""Letters of a text and of a name, and names, that are told of a stranger's file."""
_RVC_KEYS = ("config", "info", "sr", "f0", "version")


@dataclass(frozen=True)
class ModelInfo:
    """What a model file is. A value is None where the file does not say and the tensors do not tell.

    kind           voice (`.pth`) · safetensors (ours) · training (`G_…` or a base) · discriminator (`D_…` or a base)
    network        rvc or lite
    version        v1, v2, or None for lite
    sample_rate    Hz
    f0             whether it needs pitch
    speakers       rows of its speaker table, or of those of a lite voice
    content_width  values per content frame, 256 or 768
    precision      fp16, fp32, bf16, or mixed
    parameters     numbers in all tensors
    training       how far it was trained, as the file says it: `20epoch`, `epoch 20, step 400`
    extra_keys     what the file holds beyond RVC's own keys, sorted (Applio's, or a stranger's); at most 64 of them
    content_encoder  name, checksum and width of its encoder, where the file says it (ours alone)
    """

    kind: Literal["voice", "training", "discriminator", "safetensors"]
    network: Literal["rvc", "lite"]
    version: str | None
    sample_rate: int | None
    f0: bool | None
    speakers: int | None
    content_width: int | None
    precision: str
    parameters: int
    training: str | None
    extra_keys: tuple[str, ...]
    content_encoder: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"extra_keys": list(self.extra_keys)}


def inspect_model(path: Path) -> ModelInfo:
    """Look at the model file at `path`: a voice, a training checkpoint, a discriminator, or our safetensors.

    Nothing in the file runs and no network is built. Raises NotFound, and ModelFileRefused for what is unsafe, damaged
    or of another sort (HuBERT, RMVPE, …).
    """
    if is_safetensors(path):
        return describe_voice(read_voice(path), path.name)
    file = load_tensors(path, max_bytes=MAX_TRAINING_BYTES)
    kind = kind_of(file)
    if kind in ("voice", "lite"):
        return describe_voice(voice_of(file, path.name), path.name)
    if kind in ("generator", "discriminator"):
        return _of_checkpoint(checkpoint_of(file, path.name))
    raise wrong_kind(path.name, kind, wanted="a voice or a training checkpoint of RVC")


def count_weights(path: Path) -> dict[str, Any]:
    """`precision` and `parameters` of the network of a voice that speaks text, `{"model": tensors}` at `path`.

    It takes memory for all of them. Raises NotFound, and ModelFileRefused for what is unsafe, damaged or another file.
    """
    file = load_tensors(path)
    weights = file.get("model") if isinstance(file, dict) else None
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ModelFileRefused(f"{path.name} holds no network of a voice that speaks text")
    fractions = {name: value for name, value in weights.items() if value.is_floating_point()}  # others only count
    return {"precision": precision_of(fractions), "parameters": _count(fractions)}


def describe_voice(voice: VoiceFile, name: str) -> ModelInfo:
    """`inspect_model` for a voice that was read already; `name` is for messages.

    Raises ModelFileRefused when its configuration makes no network, or its tensors are of other speakers.
    """
    described: dict[str, Any]
    if voice.kind == "lite":
        described = _lite_facts(voice.config) | {"speakers": speakers_of(voice, name)}
    else:
        network = config_of_export(voice.config, voice.weights, name)
        described = _network_facts(network) | {
            "training": training_text(voice.config),
            "extra_keys": _names(key for key in voice.config if key not in _RVC_KEYS),
        }
    return ModelInfo(
        kind="safetensors" if voice.form == "safetensors" else "voice",
        network=voice.kind,
        precision=precision_of(voice.weights),
        parameters=_count(voice.weights),
        content_encoder=_encoder(voice.content_encoder),
        **described,
    )


def precision_of(weights: Mapping[str, Tensor]) -> str:
    """fp16, fp32 or bf16 when all tensors are of it, otherwise mixed."""
    kinds = {_PRECISIONS.get(value.dtype, "mixed") for value in weights.values()}
    return kinds.pop() if len(kinds) == 1 else "mixed"


def training_text(config: Mapping[str, Any]) -> str | None:
    """How far a voice was trained in its file's words: RVC's `info`, or Applio's `epoch` and `step`."""
    info, epoch, step = config.get("info"), config.get("epoch"), config.get("step")
    if isinstance(info, str) and info:
        return storable_text(info, MAX_TEXT)
    if _is_count(epoch):
        return f"epoch {epoch}, step {step}" if _is_count(step) else f"epoch {epoch}"
    return None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < 2**63


def _names(keys: Iterable[Any]) -> tuple[str, ...]:
    return tuple(sorted(storable_text(str(key), MAX_NAME) for key in keys)[:MAX_NAMES])


def _encoder(said: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a file says of its encoder, without what a stranger may have added."""
    if said is None:
        return None
    text = {key: storable_text(said[key], MAX_NAME) for key in ("name", "checksum") if isinstance(said.get(key), str)}
    return text | ({"width": said["width"]} if _is_count(said.get("width")) else {})


def _of_checkpoint(checkpoint: TrainingCheckpoint) -> ModelInfo:
    training = f"epoch {checkpoint.epoch}" if _is_count(checkpoint.epoch) else None
    common: dict[str, Any] = {
        "network": "rvc",
        "precision": precision_of(checkpoint.model),
        "parameters": _count(checkpoint.model),
        "training": training,
        "extra_keys": _names(checkpoint.extra_keys),
    }
    if checkpoint.kind == "discriminator":
        members = {name.split(".")[1] for name in checkpoint.model if name.startswith("discriminators.")}
        version = {7: "v1", 9: "v2"}.get(len(members))
        facts: dict[str, Any] = dict.fromkeys(("sample_rate", "f0", "speakers", "content_width"))
        return ModelInfo(kind="discriminator", version=version, **facts, **common)
    network = config_from_shapes(checkpoint.model)
    if network is not None:
        return ModelInfo(kind="training", **_network_facts(network), **common)
    phone, table = checkpoint.model.get("enc_p.emb_phone.weight"), checkpoint.model["emb_g.weight"]
    width = phone.shape[1] if phone is not None and phone.ndim == 2 else None
    return ModelInfo(
        kind="training",
        version={256: "v1", 768: "v2"}.get(width or 0),
        sample_rate=None,
        f0="enc_p.emb_pitch.weight" in checkpoint.model,
        speakers=table.shape[0] if table.ndim == 2 else None,
        content_width=width,
        **common,
    )


def _network_facts(network: NetworkConfig) -> dict[str, Any]:
    return {
        "version": network.version,
        "sample_rate": network.sample_rate,
        "f0": network.f0,
        "speakers": network.speakers,
        "content_width": network.content_width,
    }


def _lite_facts(config: Mapping[str, Any]) -> dict[str, Any]:
    def number(key: str) -> int | None:
        value = config.get(key)
        return value if _is_count(value) else None

    return {
        "version": None,
        "sample_rate": number("sample_rate"),
        "f0": True,
        "content_width": number("content_width"),
        "training": None,
        "extra_keys": (),
    }


def _count(weights: Mapping[str, Tensor]) -> int:
    return sum(value.numel() for value in weights.values())
