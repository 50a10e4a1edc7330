"""How does a voice look as safetensors? Written with the same bytes for the same voice, read without believing it.

Layout (safetensors 0.4 and later): 8 bytes little-endian length of the header, the header as JSON, then the tensors
without gap. Our metadata, all text as the format wants it:

    format            voicewright-voice
    format_version    1
    kind              rvc or lite
    config            JSON: what the voice's `.pth` holds beside its weights
    sample_rate       Hz
    content_encoder   JSON: name, checksum and width of the encoder it was trained with, or null where nobody knows
    order             JSON: the tensors' names in the `.pth`'s order, which the format itself does not keep
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.atomic import write_atomically

FORMAT = "voicewright-voice"
FORMAT_VERSION = 1
MAX_HEADER_BYTES = 16 * 2**20
MAX_FILE_BYTES = 8 * 2**30
_TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_NAMES = {value: key for key, value in _TYPES.items()}


@dataclass(frozen=True)
class SafetensorsVoice:
    """What one file holds: `config` without its `kind`, `content_encoder` as a voice card has it, or None."""

    kind: str
    weights: dict[str, Tensor]
    config: dict[str, Any]
    content_encoder: dict[str, Any] | None


def write_safetensors(path: Path, voice: SafetensorsVoice, *, sample_rate: int) -> str:
    """Write `voice` to `path`; returns its SHA-256 as hex. Equal voices give equal bytes.

    Weights are float32, float16 or bfloat16 and keep their precision. Atomic; raises StorageFull, and ValueError for
    other types or a configuration that is not plain.
    """
    weights = {name: value.detach().cpu().contiguous() for name, value in voice.weights.items()}
    header: dict[str, Any] = {"__metadata__": _metadata(voice, sample_rate)}
    # the widest types first and then by name, as the format's own library does: every tensor stays aligned
    names = sorted(weights, key=lambda name: (-weights[name].element_size(), name))
    offset = 0
    for name in names:
        value = weights[name]
        if value.dtype not in _NAMES:
            raise ValueError(f"{name} is {value.dtype}; weights are float32, float16 or bfloat16")
        end = offset + value.numel() * value.element_size()
        header[name] = {"dtype": _NAMES[value.dtype], "shape": list(value.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 8)

    def write(stream: IO[bytes]) -> None:
        stream.write(struct.pack("<Q", len(text)))
        stream.write(text)
        for name in names:
            stream.write(_bytes_of(weights[name]))

    return write_atomically(path, write)


def read_safetensors(path: Path, *, max_bytes: int = MAX_FILE_BYTES) -> SafetensorsVoice:
    """The voice in a safetensors file of ours. Nothing is allocated before every size has been compared.

    Raises NotFound, and ModelFileRefused for a header that lies (length, offsets, overlaps, shapes, doubled names),
    for safetensors that are no voice of ours, and for a newer format.
    """
    if not path.is_file():
        raise NotFound(f"there is no model file {path.name}")
    with path.open("rb") as file:
        size = path.stat().st_size
        if size > max_bytes:
            raise ModelFileRefused(f"{path.name} has {size} bytes; the limit is {max_bytes}")
        header, begin = _header(file, size, path.name)
        metadata = header.pop("__metadata__", None)
        try:
            views = _checked(header, size - begin)
            kind, config, encoder, order = _meaning(metadata, views)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ModelFileRefused(f"{path.name} is refused: {error}") from error
        weights = {name: _read(file, begin, *views[name], path.name) for name in order}
    return SafetensorsVoice(kind, weights, config, encoder)


def _metadata(voice: SafetensorsVoice, sample_rate: int) -> dict[str, str]:
    return {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "kind": voice.kind,
        "config": json.dumps(voice.config, allow_nan=False),
        "sample_rate": str(sample_rate),
        "content_encoder": json.dumps(voice.content_encoder, allow_nan=False),
        "order": json.dumps(list(voice.weights)),
    }


def _header(file: IO[bytes], size: int, name: str) -> tuple[dict[str, Any], int]:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise ModelFileRefused(f"{name} is no safetensors file: its header claims {length} bytes of {size}")
    try:
        header = json.loads(file.read(length), object_pairs_hook=_no_doubles)
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"{name} is no safetensors file: its header is not readable ({error})") from error
    if not isinstance(header, dict):
        raise ModelFileRefused(f"{name} is no safetensors file: its header is no JSON object")
    return header, 8 + length


def _no_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) != len(pairs):
        raise ValueError("a name stands in it twice")
    return held


def _checked(header: Mapping[str, Any], data: int) -> dict[str, tuple[torch.dtype, tuple[int, ...], int]]:
    """Name → type, shape and first byte; raises ValueError unless the tensors fill the `data` bytes without overlap."""
    views: dict[str, tuple[torch.dtype, tuple[int, ...], int]] = {}
    spans: list[tuple[int, int, str]] = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"{name} is not described by its type, shape and place")
        dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if dtype not in _TYPES:
            raise ValueError(f"{name} is of type {dtype!r}; a voice has {', '.join(_TYPES)}")
        numbers = [*shape, begin, end]
        if any(type(n) is not int or not 0 <= n <= data for n in numbers) or len(shape) > 8:
            raise ValueError(f"{name} claims a shape or a place that its file cannot hold")
        if math.prod(shape) * _TYPES[dtype].itemsize != end - begin:
            raise ValueError(f"{name} claims shape {shape} and {end - begin} bytes")
        views[name] = (_TYPES[dtype], tuple(shape), begin)
        spans.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(spans):
        if begin != reached:
            raise ValueError(f"{name} overlaps another tensor or leaves a gap")
        reached = end
    if reached != data:
        raise ValueError(f"its tensors fill {reached} bytes of {data}")
    return views


def _meaning(metadata: Any, views: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any] | None, list[str]]:
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        raise ValueError("it is safetensors, and not a voice of this platform")
    version = metadata.get("format_version")
    if version != str(FORMAT_VERSION):
        raise ValueError(f"its format is version {version!r}, this program reads {FORMAT_VERSION}; use a newer program")
    kind, config = metadata["kind"], json.loads(metadata["config"])
    encoder, order = json.loads(metadata["content_encoder"]), json.loads(metadata["order"])
    if kind not in ("rvc", "lite") or not isinstance(config, dict):
        raise ValueError("its kind or its configuration is damaged")
    if encoder is not None and not isinstance(encoder, dict):
        raise ValueError("its content encoder is damaged")
    if not isinstance(order, list) or len(order) != len(views) or set(order) != set(views):
        raise ValueError("its order names other tensors than it holds")
    return kind, config, encoder, order


def _read(file: IO[bytes], start: int, dtype: torch.dtype, shape: tuple[int, ...], begin: int, name: str) -> Tensor:
    tensor = torch.empty(shape, dtype=dtype)
    file.seek(start + begin)
    target = _bytes_of(tensor)
    if file.readinto(target) != target.nbytes:  # type: ignore[attr-defined] # an open file has it
        raise ModelFileRefused(f"{name} ends before its content does")
    return tensor


def _bytes_of(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
