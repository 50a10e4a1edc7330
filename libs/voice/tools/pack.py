"""How is a voice packed for RVC, for Applio, or for another installation of ours?"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Any, Literal

from libs.audio.encode import atomic_file
from libs.common.errors import InvalidInput
from libs.voice.artefact import VoiceFile, cast_weights, read_voice, write_voice
from libs.voice.atomic import TEMPORARY_PREFIX
from libs.voice.index_file import IndexShape, check_index_file
from libs.voice.retrieval import file_name
from libs.voice.tools.inspect import ModelInfo, describe_voice
from libs.voice.tools.keys import applio_config, applio_name, rvc_config
from libs.voice.tools.unpack import CARD

Form = Literal["rvc", "applio", "voicewright"]
FORMS: tuple[Form, ...] = ("rvc", "applio", "voicewright")
_BLOCK = 1024 * 1024
_EPOCH = (1980, 1, 1, 0, 0, 0)


def write_archive(
    form: Form,
    model: Path,
    index: Path | None,
    card: dict[str, Any] | None,
    output: Path,
    *,
    name: str | None = None,
) -> None:
    """Pack the voice at `model`, its `index` and its `card` into the zip `output`, in one of three forms. Atomic.

    rvc          `{name}.pth` in RVC's keys and half precision, `added_IVF…_{name}_{version}.index`
    applio       `{name}/{name}_{epoch}e_{step}s.pth` in Applio's keys, `{name}/{name}.index`
    voicewright  `{name}/` with the model's file as it is, `{name}.index` and `voice.json`

    `name`: default is the output's. Equal content gives equal bytes. Raises InvalidInput for a voice that the form
    cannot hold (a `lite` voice in RVC's or Applio's), NotFound, ModelFileRefused for a model or an index that is not
    sound, and StorageFull.
    """
    if form not in FORMS:
        raise InvalidInput(f"form is {form!r}; choose one of {', '.join(FORMS)}", field="form")
    name = plain_name(name if name is not None else output.stem)
    voice = read_voice(model)
    info = describe_voice(voice, model.name)
    shape = check_index_file(index, width=info.content_width) if index is not None else None
    if form != "voicewright" and voice.kind != "rvc":
        raise InvalidInput(
            f"{model.name} is a `{voice.kind}` voice, which {form} cannot open; choose the form voicewright",
            field="form",
        )
    files: list[tuple[str, Path | bytes]] = []
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=output.parent) as temporary:
        if form == "voicewright":
            files.append((f"{name}/{name}{'.safetensors' if voice.form == 'safetensors' else '.pth'}", model))
            files.append((f"{name}/{CARD}", _card_text(card, name, info)))
        else:
            files.append(_foreign(form, voice, name, Path(temporary) / "voice.pth"))
        if index is not None and shape is not None:
            files.append((_index_name(form, name, shape, info), index))
        _zip(output, files)


def _foreign(form: Form, voice: VoiceFile, name: str, temporary: Path) -> tuple[str, Path]:
    """The voice in another program's keys, and its place in the zip. RVC and Applio both store half precision."""
    half = cast_weights(voice.weights, "fp16", name)
    config = rvc_config(voice.config) if form == "rvc" else applio_config(voice.config, name)
    write_voice(temporary, half, {"kind": "rvc", **config})
    return (f"{name}.pth" if form == "rvc" else f"{name}/{applio_name(name, config)}"), temporary


def _index_name(form: Form, name: str, shape: IndexShape, info: ModelInfo) -> str:
    if form != "rvc":
        return f"{name}/{name}.index"
    if shape.form == "flat":
        return f"added_Flat_{name}_{info.version}.index"
    return file_name("added", shape.lists, name, str(info.version), shape.nprobe)


def _card_text(card: dict[str, Any] | None, name: str, info: ModelInfo) -> bytes:
    content = card if card is not None else {"name": name, "model": info.as_dict()}
    return json.dumps(content, indent=1, sort_keys=True).encode()


def _zip(output: Path, files: list[tuple[str, Path | bytes]]) -> None:
    with atomic_file(output) as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for place, content in files:
            entry = zipfile.ZipInfo(place, date_time=_EPOCH)
            entry.external_attr = 0o644 << 16
            with archive.open(entry, "w", force_zip64=True) as target:
                if isinstance(content, bytes):
                    target.write(content)
                    continue
                with content.open("rb") as source:
                    shutil.copyfileobj(source, target, _BLOCK)


def plain_name(name: str) -> str:
    """`name` when files of a voice may be called so on every system; raises InvalidInput otherwise."""
    if not name or len(name) > 100 or name.startswith(".") or any(sign in name for sign in '/\\:*?"<>|\0\n\r'):
        raise InvalidInput(f"{name!r} cannot be the name of a voice's files", field="name")
    return name
