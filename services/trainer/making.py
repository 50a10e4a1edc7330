"""How does a file become a voice? Opened safely, brought into one form, tried; all in a child process.

Imported, extracted from a training checkpoint, or merged of two voices: in the end there is one tried file of weights,
perhaps an index, and what is known about them.
"""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

WEIGHTS, NATIVE, INDEX = "voice.pth", "voice.safetensors", "voice.index"
MAX_WIDTH = 4096


@dataclass(frozen=True)
class Source:
    """A file, or a version of a voice with its card."""

    path: Path
    card: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Materials:
    """From what a voice is made. `room` is an empty folder of the attempt; nobody else sees what lies in it."""

    tool: Literal["import", "extract", "merge"]
    room: Path
    model: Path | None = None
    index: Path | None = None
    config: Path | None = None
    first: Source | None = None
    second: Source | None = None
    share: float = 0.5
    speaker: int | None = None
    encoder: Literal["auto", "hubert", "builtin"] = "auto"


def make(materials: Materials) -> dict[str, Any]:
    """Makes and tries the voice; leaves `voice.pth` and perhaps `voice.safetensors` and `voice.index` in the room.

    Returns `info` (what is in the file), `quality` of a test sound, `content_encoder` (None: unknown, taken for RVC's),
    `form` and `card` of an archive. Raises ModelFileRefused with the reason for what is unsafe, is no voice, does not
    fit its index or makes no sound; InvalidInput for voices that cannot be merged.
    """
    from libs.voice.tools import verify_voice

    weights = materials.room / WEIGHTS
    if materials.tool == "merge":
        index, form, card, encoder = None, "merge", None, _merge(materials, weights)
    elif materials.tool == "extract":
        index, form, card, encoder = materials.index, "checkpoint", None, None
        _extract(materials, weights)
    else:
        index, form, card, encoder = _take_in(materials, weights)
    result = verify_voice(weights, index)
    if index is not None and index != materials.room / INDEX:
        index.rename(materials.room / INDEX)
    if materials.tool != "merge":
        encoder = _encoder(materials, result.info.network, encoder or result.info.content_encoder)
    return {
        "info": result.info.as_dict(),
        "has_index": index is not None,
        "has_native": _in_our_form(weights, materials.room / NATIVE, encoder),
        "quality": {"peak": round(float(result.peak), 4), "level_db": round(float(result.level_db), 2)},
        "content_encoder": encoder,
        "form": form,
        "card": card,
    }


def _take_in(
    materials: Materials, weights: Path
) -> tuple[Path | None, str, dict[str, Any] | None, dict[str, Any] | None]:
    """The voice of a file or an archive as `weights`; its index, form, card, and encoder as the card says."""
    from libs.voice.tools import convert_file, inspect_model, open_archive

    assert materials.model is not None
    model, index, card, form = materials.model, materials.index, None, "file"
    if _is_archive(model):
        held = open_archive(model, materials.room / "unpacked")
        model, card, form = held.model, held.card, "archive"
        index = index or held.index
    info = inspect_model(model)
    if info.kind == "safetensors":
        convert_file(model, weights, "fp16" if info.precision == "fp16" else "fp32")
    else:
        model.rename(weights)  # as it is: byte by byte what its owner knows
    encoder = (card or {}).get("content_encoder") or info.content_encoder
    return index, form, card, encoder


def _in_our_form(weights: Path, target: Path, encoder: dict[str, Any] | None) -> bool:
    """Writes the same as safetensors. False for what a stranger's file may hold and the form has no place for."""
    from libs.voice.tools import convert_file

    try:
        convert_file(weights, target, "safetensors", content_encoder=encoder)
    except ValueError:  # doubles, or a setting that is no number of JSON's
        return False
    return True


def _extract(materials: Materials, weights: Path) -> None:
    from libs.voice.tools import extract_voice

    assert materials.model is not None
    extract_voice(materials.model, weights, config=materials.config, speaker=materials.speaker)


def _merge(materials: Materials, weights: Path) -> dict[str, Any] | None:
    from libs.common.errors import InvalidInput
    from libs.voice.tools import merge_voices

    assert materials.first is not None
    assert materials.second is not None
    encoders = [source.card.get("content_encoder") for source in (materials.first, materials.second)]
    if _identity(encoders[0]) != _identity(encoders[1]):
        names = [(encoder or {}).get("name", "an unknown encoder") for encoder in encoders]
        raise InvalidInput(
            f"the voices were trained on features of different content encoders ({names[0]} and {names[1]}), "
            "which do not mix",
            field="second",
            actions=("Choose two voices that were trained in the same way.",),
        )
    merge_voices(materials.first.path, materials.second.path, materials.share, weights)
    return encoders[0]


def _identity(encoder: dict[str, Any] | None) -> tuple[Any, Any] | None:
    return (encoder.get("name"), encoder.get("checksum")) if encoder else None


def _is_archive(path: Path) -> bool:
    """Whether a file is a zip that is not itself a torch file, which is a zip as well."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return not any(name == "data.pkl" or name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return True  # whoever opens it as an archive says what is wrong with it


def _encoder(materials: Materials, network: str, said: Any) -> dict[str, Any] | None:
    """Name and checksum of the encoder whose features the voice needs; None when nobody says, which means RVC's own.

    A file of ours says it itself, and its word goes before the sender's.
    """
    if isinstance(said, dict):
        name, checksum, width = (said.get(key) for key in ("name", "checksum", "width"))
        if re.fullmatch(r"[\w.-]{1,64}", str(name)) and re.fullmatch(r"[0-9a-f]{64}", str(checksum)):
            is_width = isinstance(width, int) and 0 < width <= MAX_WIDTH
            return {"name": name, "checksum": checksum} | ({"width": width} if is_width else {})
    if materials.encoder == "builtin" or (materials.encoder == "auto" and network == "lite"):
        from libs.voice.content import card_of
        from libs.voice.content_small import SmallContentEncoder

        return card_of(SmallContentEncoder())
    return None
