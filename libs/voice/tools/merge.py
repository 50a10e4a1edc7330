"""How do two voices become one between them? The weighted mean of their weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from libs.common.errors import InvalidInput
from libs.voice.artefact import SAFETENSORS, VoiceFile, cast_weights, read_voice, synthesizer_of, write_voice
from libs.voice.lite_speakers import TABLES
from libs.voice.tools.inspect import ModelInfo, describe_voice
from libs.voice.tools.keys import rvc_config

SPEAKERS = "emb_g.weight"
BY_SPEAKER = (SPEAKERS, *TABLES)
"""Tensors with a row for each speaker."""


def merge_voices(first: Path, second: Path, share: float, output: Path) -> None:
    """Mix two voices: `share` (0…1) of the first and the rest of the second, tensor by tensor in float32. Atomic.

    As RVC's merge: both need the same network, and of speaker tables of different length the rows that both have are
    mixed and the others dropped. `output` ending in `.safetensors` gives our form in float32; else RVC voices are
    stored half, as RVC does, and `lite` ones in float32. Raises InvalidInput for a share out of range or a voice of
    another kind, version, rate, pitch or size, naming what differs; NotFound, ModelFileRefused, StorageFull.
    """
    if not 0.0 <= share <= 1.0:
        raise InvalidInput(
            f"share is {share}; it must be from 0 (all of the second) to 1 (all of the first)", field="share"
        )
    voices = (_read(first), _read(second))
    infos = tuple(describe_voice(voice, path.name) for voice, path in zip(voices, (first, second), strict=True))
    _require_alike(voices, infos, (first.name, second.name))
    a, b = (voice.weights for voice in voices)
    mixed: dict[str, Tensor] = {}
    for name, value in a.items():
        left, right = value.float(), b[name].float()
        if name in BY_SPEAKER:
            rows = min(len(left), len(right))
            left, right = left[:rows], right[:rows]
        mixed[name] = share * left + (1 - share) * right
    config = dict(voices[0].config)
    if voices[0].kind == "rvc":
        config = rvc_config(config) | {"info": f"{first.stem} {share:g} + {second.stem} {1 - share:g}"}
        config["config"][15] = len(mixed[SPEAKERS])
        if output.suffix != SAFETENSORS:
            mixed = cast_weights(mixed, "fp16", output.name)
    elif TABLES[0] in mixed:
        config["speakers"] = len(mixed[TABLES[0]])
    encoders = {str(voice.content_encoder) for voice in voices}
    write_voice(
        output,
        mixed,
        {"kind": voices[0].kind, **config},
        content_encoder=voices[0].content_encoder if len(encoders) == 1 else None,
    )


def _read(path: Path) -> VoiceFile:
    voice = read_voice(path)
    synthesizer_of(voice, path.name)
    return voice


def _require_alike(voices: tuple[VoiceFile, ...], infos: tuple[ModelInfo, ...], names: tuple[str, str]) -> None:
    for field, what in (
        ("network", "network"),
        ("version", "version"),
        ("sample_rate", "sample rate"),
        ("f0", "use of pitch"),
        ("content_width", "width of content"),
    ):
        a, b = (getattr(info, field) for info in infos)
        if a != b:
            raise InvalidInput(
                f"{names[0]} and {names[1]} cannot be merged: their {what} differs ({a} and {b})", field="second"
            )
    one, two = (voice.content_encoder for voice in voices)
    if one is not None and two is not None and one != two:
        raise InvalidInput(
            f"{names[0]} and {names[1]} cannot be merged: they were trained on features of different content encoders "
            f"({one.get('name')} and {two.get('name')})",
            field="second",
        )
    a_shapes, b_shapes = (_shapes(voice.weights) for voice in voices)
    if a_shapes.keys() != b_shapes.keys():
        raise InvalidInput(f"{names[0]} and {names[1]} cannot be merged: they hold different tensors", field="second")
    for name, shape in a_shapes.items():
        if shape != b_shapes[name]:
            sizes = f"{list(shape)} and {list(b_shapes[name])}"
            raise InvalidInput(
                f"{names[0]} and {names[1]} cannot be merged: {name} has the shapes {sizes}", field="second"
            )


def _shapes(weights: dict[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    """Shapes that must be the same; of speakers' tables only the width."""
    return {name: tuple(value.shape[1:] if name in BY_SPEAKER else value.shape) for name, value in weights.items()}
