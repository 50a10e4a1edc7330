"""How is a voice written to a file and opened again, whatever network it is?"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused
from libs.common.speakers import SPEAKERS
from libs.voice.atomic import save_tensors, write_atomically
from libs.voice.file_kinds import kind_of, wrong_kind
from libs.voice.plain import is_plain
from libs.voice.rvc.files import exported_names, file_dict, network_from_export, rate_of
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.safe_load import MAX_VOICE_BYTES, load_tensors
from libs.voice.safetensors_file import SafetensorsVoice, read_safetensors, write_safetensors
from libs.voice.synthesizer import Synthesizer

SAFETENSORS = ".safetensors"


@dataclass(frozen=True)
class VoiceFile:
    """A voice as its file has it: `weights` by name in the file's precision, and in `config` every other plain key.

    RVC networks have RVC's older names (weight_g, weight_v) here, and no posterior encoder, which only training needs.
    `config` of kind rvc: config (list of 18), sr, f0, version, and what RVC (info) or Applio (epoch, step, …) adds; of
    kind lite: its dimensions. `content_encoder` as in a voice card; None for files that do not say (all `.pth`).
    """

    kind: Literal["rvc", "lite"]
    weights: dict[str, Tensor]
    config: dict[str, Any]
    form: Literal["pth", "safetensors"] = "pth"
    content_encoder: dict[str, Any] | None = None


def write_voice(
    path: Path, weights: dict[str, Tensor], config: dict[str, Any], *, content_encoder: dict[str, Any] | None = None
) -> str:
    """Write what `Recipe.export` gave as one file; returns its SHA-256 as hex.

    A name that ends in `.safetensors` gives our own form (see safetensors_file.py), which alone keeps
    `content_encoder`; every other name gives `.pth`. `kind` rvc: RVC's dict (weight, config, info, sr, f0, version),
    which RVC and Applio open. `kind` lite: {"kind", "weight", "config"}. The same weights give the same bytes. Atomic;
    raises StorageFull.
    """
    kind = config.get("kind")
    if kind not in ("rvc", "lite"):
        raise ValueError(f"kind is {kind!r}; a voice is rvc or lite")
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in weights.items()}
    plain = {key: value for key, value in config.items() if key != "kind"}
    if path.suffix == SAFETENSORS:
        rate = rate_of(plain) if kind == "rvc" else int(plain["sample_rate"])
        return write_safetensors(path, SafetensorsVoice(kind, kept, plain, content_encoder), sample_rate=rate)
    content: Any
    if kind == "rvc":
        content = file_dict(kept, plain)
    else:
        content = {"kind": "lite", "weight": OrderedDict(kept), "config": plain}
    content = _canonical(content)
    return write_atomically(path, lambda stream: save_tensors(content, stream))


def read_voice(path: Path) -> VoiceFile:
    """Read the voice at `path`: ours (`.pth`, `.safetensors`), RVC's or Applio's export, whatever its name ends in.

    Nothing is compared with a network yet; `synthesizer_of` does. Raises NotFound, and ModelFileRefused for what is
    unsafe, larger than 1 GiB, or of another sort (training checkpoints, discriminators, HuBERT, …), saying what to give
    instead.
    """
    if is_safetensors(path):
        held = read_safetensors(path, max_bytes=MAX_VOICE_BYTES)
        network = cast("Literal['rvc', 'lite']", held.kind)
        return VoiceFile(network, held.weights, held.config, "safetensors", held.content_encoder)
    return voice_of(load_tensors(path, max_bytes=MAX_VOICE_BYTES), path.name)


def voice_of(file: Any, name: str) -> VoiceFile:
    """`read_voice` for what `load_tensors` read already; `name` is for messages."""
    kind = kind_of(file)
    if kind not in ("voice", "lite"):
        raise wrong_kind(name, kind, wanted="a voice")
    weights = file["weight"]
    if not isinstance(weights, dict) or not weights or not all(isinstance(v, Tensor) for v in weights.values()):
        raise ModelFileRefused(f"{name} holds no `weight`: it is no exported voice")
    if kind == "lite":
        config = file.get("config")
        if not isinstance(config, dict) or not is_plain(config):
            raise ModelFileRefused(f"{name} holds no configuration of text and numbers")
        return VoiceFile("lite", dict(weights), dict(config))
    others = {key: value for key, value in file.items() if key != "weight" and is_plain(value)}
    return VoiceFile("rvc", exported_names(weights), others)


def cast_weights(weights: dict[str, Tensor], precision: Literal["fp16", "fp32"], name: str) -> dict[str, Tensor]:
    """The weights in half or single precision. Raises ModelFileRefused for values that half precision cannot hold (over
    65504) or that are not finite; `name` is for messages."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    cast_all = {key: value.to(dtype) for key, value in weights.items()}
    for key, value in cast_all.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelFileRefused(f"{name}: {key} holds values that {precision} cannot hold")
    return cast_all


def is_safetensors(path: Path) -> bool:
    """Whether the file begins like safetensors: 8 bytes of length, then a JSON object. A missing file is not."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return len(start) == 9 and start[8:] == b"{" and start[:2] != b"PK"


def load_synthesizer(path: Path, device: torch.device | str = "cpu") -> Synthesizer:
    """Open the voice at `path` (see `read_voice`), on `device`. Raises NotFound, ModelFileRefused."""
    return synthesizer_of(read_voice(path), path.name, device)


def synthesizer_of(voice: VoiceFile, name: str, device: torch.device | str = "cpu") -> Synthesizer:
    """The network of a voice, ready to render. Raises ModelFileRefused when weights and configuration do not fit;
    `name` is for messages."""
    device = torch.device(device)
    if voice.kind == "lite":
        return _lite(voice, name, device)
    return RvcSynthesizer(network_from_export({"weight": voice.weights, **voice.config}, name), device)


def speakers_of(voice: VoiceFile, name: str) -> int:
    """As how many people a `lite` voice speaks, as its file says. Raises ModelFileRefused when its tensors say
    otherwise; `name` is for messages."""
    from libs.voice.lite_speakers import TABLES

    said = voice.config.get("speakers", 1)
    tables = [voice.weights.get(table) for table in TABLES]
    held = [1 if table is None else len(table) if table.ndim == 2 else None for table in tables]
    if any(rows != said for rows in held) or (said == 1 and any(table is not None for table in tables)):
        raise ModelFileRefused(f"{name} says that it has {said!r} speakers, and its tensors say otherwise")
    return int(said)


def _lite(voice: VoiceFile, name: str, device: torch.device) -> Synthesizer:
    from libs.voice.lite import LiteConfig, LiteSynthesizer

    values, weights = voice.config, voice.weights
    known = {field.name for field in dataclasses.fields(LiteConfig)}
    limits = {"sample_rate": 192_000, "content_width": 4096, "fft": 16_384, "width": 4096, "hidden": 16_384}
    limits |= {"loudness": 1, "speakers": SPEAKERS}
    for key, value in values.items():
        if key not in known or not isinstance(value, int) or not 1 <= value <= limits.get(key, 64):
            raise ModelFileRefused(f"{name}: {key} is {value!r}, which no lite voice has")
    speakers_of(voice, name)
    config = LiteConfig(**values)
    with torch.device("meta"):
        expected = {key: tuple(tensor.shape) for key, tensor in LiteSynthesizer(config).state_dict().items()}
    for key, shape in expected.items():
        tensor = weights.get(key)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape:
            raise ModelFileRefused(f"{name}: {key} is missing or not of shape {list(shape)}")
        if not math.isfinite(float(tensor.double().abs().sum())):
            raise ModelFileRefused(f"{name}: {key} holds values that are not finite")
    network = LiteSynthesizer(config)
    network.load_state_dict({key: weights[key].float() for key in expected})
    return network.to(device).eval().requires_grad_(False)


def _canonical(value: Any) -> Any:
    """Equal text becomes one object: pickle writes the second mention of an object shorter than of its equal."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, OrderedDict):
        return OrderedDict((_canonical(key), _canonical(each)) for key, each in value.items())
    if isinstance(value, dict):
        return {_canonical(key): _canonical(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(each) for each in value]
    return value
