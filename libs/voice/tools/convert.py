"""How does a voice change its file's form? Half, float, or safetensors; the numbers stay what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from libs.common.errors import InvalidInput
from libs.voice.artefact import SAFETENSORS, cast_weights, read_voice, synthesizer_of, write_voice

TargetForm = Literal["fp16", "fp32", "safetensors"]
FORMS: tuple[TargetForm, ...] = ("fp16", "fp32", "safetensors")


def convert_file(
    source: Path, output: Path, form: TargetForm, *, content_encoder: dict[str, Any] | None = None
) -> None:
    """Write the voice at `source` (any form) as `output`. Atomic.

    fp16, fp32   a `.pth` of that precision, in the keys that the source has (RVC's, Applio's, ours)
    safetensors  our own form in the source's precision; `output` must end in `.safetensors`

    float32 → safetensors → float32 gives the same bytes; half precision rounds once and then stays. The content encoder
    that a safetensors file names is not kept by `.pth`, which has no place for it; `content_encoder`, as a card has it,
    is what a safetensors file will name when its source names none. Raises InvalidInput for a name that
    does not fit the form, NotFound, ModelFileRefused for what is no sound voice or does not fit into half precision,
    and StorageFull.
    """
    if form not in FORMS:
        raise InvalidInput(f"form is {form!r}; choose one of {', '.join(FORMS)}", field="form")
    if (form == "safetensors") != (output.suffix == SAFETENSORS):
        raise InvalidInput(f"{output.name} does not fit the form {form}: `.safetensors` or `.pth`", field="output")
    voice = read_voice(source)
    synthesizer_of(voice, source.name)
    weights = voice.weights
    if form != "safetensors":
        weights = cast_weights(weights, form, source.name)
    write_voice(
        output, weights, {"kind": voice.kind, **voice.config}, content_encoder=voice.content_encoder or content_encoder
    )
