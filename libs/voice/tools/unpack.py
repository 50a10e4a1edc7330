"""How is a voice taken out of somebody's zip? Measured first, unpacked aside, and put in place when all is well."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from libs.common.errors import ModelFileRefused, NotFound, PlatformError
from libs.common.storable import unstorable
from libs.voice.artefact import is_safetensors, read_voice, voice_of
from libs.voice.atomic import TEMPORARY_PREFIX, storage_full_told
from libs.voice.file_kinds import kind_of, wrong_kind
from libs.voice.index_file import check_index_file
from libs.voice.safe_load import MAX_TRAINING_BYTES, load_tensors
from libs.voice.tools.inspect import describe_voice
from libs.voice.zip_layout import require_apart

CARD = "voice.json"
MAX_MEMBERS = 256
MAX_MODELS = 8
MAX_BYTES = 8 * 2**30
MAX_CARD_BYTES = 8 * 2**20
"""A trained voice's card names its recordings, 70 bytes each."""
MAX_RATIO = 100
"""Trained weights hardly compress: what grows a hundredfold is a bomb."""
MODEL_SUFFIXES = (".pth", ".pt", ".safetensors")
_BLOCK = 1024 * 1024
_ENCRYPTED = 0x1


@dataclass(frozen=True)
class ArchiveContents:
    """What was taken out of an archive: the voice's file, its index if there was one, and our card if there was one."""

    model: Path
    index: Path | None
    card: dict[str, Any] | None


def open_archive(path: Path, into: Path, *, max_bytes: int = MAX_BYTES) -> ArchiveContents:
    """Take the voice, its index and its card out of the zip at `path` into the folder `into`, which may be new.

    RVC's form is `x.pth` and `added_….index` side by side, Applio's the same in a folder, ours also has `voice.json`;
    folders make no difference and other files stay in. Training checkpoints beside a voice are left out, and so are
    `trained_….index` files. Nothing is written under `into` unless everything is well.

    Raises NotFound, and ModelFileRefused with the reason: no zip, encrypted or linked entries, names that leave the
    folder, two entries of one name, more than 256 entries, more than `max_bytes` unpacked, entries that unpack more
    than a hundredfold, no voice in it or several, a voice that speaks text, an unsafe model, an index of another width,
    a broken card.
    """
    if not path.is_file():
        raise NotFound(f"there is no archive {path.name}")
    into.mkdir(parents=True, exist_ok=True)
    with (
        storage_full_told(path.name),
        tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=into) as temporary,
    ):
        held = _unpack(path, Path(temporary), max_bytes)
        if held.card is not None and (kind := held.card.get("kind", "rvc")) != "rvc":
            raise ModelFileRefused(
                f"{path.name} holds a voice that speaks text ({str(kind)[:20]}); only those that convert are taken in",
                actions=("Train it here from its recordings, or restore a backup of the platform that it is from.",),
            )
        model, width = _the_voice(held.models, path.name)
        index = _the_index(held.indices, width, path.name)
        return ArchiveContents(_put(model, into), _put(index, into) if index is not None else None, held.card)


@dataclass
class _Held:
    models: list[Path] = field(default_factory=list)
    indices: list[Path] = field(default_factory=list)
    card: dict[str, Any] | None = None


def _unpack(path: Path, folder: Path, max_bytes: int) -> _Held:
    held = _Held()
    try:
        with zipfile.ZipFile(path) as archive:
            for number, (entry, place) in enumerate(_wanted(archive, path.name, max_bytes)):
                with archive.open(entry) as source:
                    if place.name == CARD:
                        held.card = _card(source, path.name)
                        continue
                    target = folder / str(number) / _safe_name(place.name)
                    target.parent.mkdir()
                    _copy(source, target, entry.file_size, path.name)
                (held.indices if place.suffix.lower() == ".index" else held.models).append(target)
    except (PlatformError, OSError):
        raise
    except Exception as error:  # whatever a hostile archive provokes in the reader is a refusal
        raise ModelFileRefused(f"{path.name} is no readable zip: {error}") from error
    return held


def _wanted(archive: zipfile.ZipFile, name: str, max_bytes: int) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    """The entries that matter with their cleaned paths, after every entry has been looked at."""
    entries = archive.infolist()
    if len(entries) > MAX_MEMBERS:
        raise ModelFileRefused(f"{name} has {len(entries)} entries; {MAX_MEMBERS} are accepted")
    if any(entry.filename.endswith("/data.pkl") for entry in entries):
        raise ModelFileRefused(f"{name} is itself a model file; give it as the model, not as an archive")
    require_apart(entries, name)
    seen: set[str] = set()
    wanted, total = [], 0
    for entry in entries:
        place = _place(entry, name)
        if str(place).casefold() in seen:
            raise ModelFileRefused(f"{name} holds two entries named {_shown(entry)}")
        seen.add(str(place).casefold())
        total += entry.file_size
        if total > max_bytes:
            raise ModelFileRefused(f"{name} would unpack to more than {max_bytes} bytes")
        if entry.file_size > MAX_RATIO * entry.compress_size + _BLOCK:
            raise ModelFileRefused(f"{name}: {_shown(entry)} unpacks more than {MAX_RATIO}-fold; that is no model")
        if entry.is_dir() or "__MACOSX" in place.parts or place.name.startswith("."):
            continue
        if place.suffix.lower() in (*MODEL_SUFFIXES, ".index") or place.name == CARD:
            wanted.append((entry, place))
    models = [place for _, place in wanted if place.suffix.lower() in MODEL_SUFFIXES]
    if len(models) > MAX_MODELS:
        raise ModelFileRefused(f"{name} holds {len(models)} model files; give one voice per archive")
    return wanted


def _place(entry: zipfile.ZipInfo, name: str) -> PurePosixPath:
    place = PurePosixPath(entry.filename.replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or re.match(r"^[A-Za-z]:", str(place)) or "\0" in entry.orig_filename:
        raise ModelFileRefused(f"{name}: the entry {_shown(entry)} would leave its folder")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise ModelFileRefused(f"{name}: the entry {_shown(entry)} is a link or a device, and no file")
    if entry.flag_bits & _ENCRYPTED:
        raise ModelFileRefused(f"{name} is encrypted; unpack it and give the files")
    # other methods let a file ask for gigabytes of dictionary before a byte is unpacked
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ModelFileRefused(f"{name}: the entry {_shown(entry)} is packed in a rare way; use a plain zip")
    return place


def _the_voice(models: list[Path], name: str) -> tuple[Path, int]:
    """The one voice among the models, and the width of its content. Unsafe files are refused even beside a voice."""
    voices: dict[Path, int] = {}
    others: list[ModelFileRefused] = []
    for path in models:
        file = None if is_safetensors(path) else load_tensors(path, max_bytes=MAX_TRAINING_BYTES)
        kind = kind_of(file) if file is not None else "voice"
        if kind in ("voice", "lite"):
            voice = read_voice(path) if file is None else voice_of(file, path.name)
            voices[path] = describe_voice(voice, path.name).content_width or 0
        else:
            others.append(wrong_kind(path.name, kind, wanted="a voice"))
    if len(voices) > 1:
        names = ", ".join(path.name for path in voices)
        raise ModelFileRefused(f"{name} holds {len(voices)} voices ({names}); give one voice per archive")
    if not voices:
        raise others[0] if others else ModelFileRefused(f"{name} holds no model file (`.pth` or `.safetensors`)")
    return next(iter(voices.items()))


def _the_index(indices: list[Path], width: int, name: str) -> Path | None:
    """The one index whose vectors are `width` wide. `trained_` files hold no vectors and are passed over."""
    found = [path for path in indices if not path.name.startswith("trained_")]
    if len(found) > 1:
        found = [path for path in found if path.name.startswith("added_")] or found
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise ModelFileRefused(f"{name} holds {len(found)} indices ({names}); give one voice per archive")
    if not found:
        return None
    check_index_file(found[0], width=width)
    return found[0]


def _card(source: IO[bytes], name: str) -> dict[str, Any]:
    text = source.read(MAX_CARD_BYTES + 1)
    try:
        card = json.loads(text) if len(text) <= MAX_CARD_BYTES else None
    except (ValueError, RecursionError) as error:
        raise ModelFileRefused(f"{name}: its {CARD} is no JSON ({error})") from error
    if not isinstance(card, dict):
        raise ModelFileRefused(f"{name}: its {CARD} is no JSON object of at most {MAX_CARD_BYTES} bytes")
    if reason := unstorable(card):
        raise ModelFileRefused(f"{name}: its {CARD} holds {reason}")
    return card


def _copy(source: IO[bytes], target: Path, declared: int, name: str) -> None:
    written = 0
    with target.open("xb") as file:
        while block := source.read(_BLOCK):
            written += len(block)
            if written > declared:
                raise ModelFileRefused(f"{name}: {target.name} unpacks to more than it declares")
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    if written != declared:
        raise ModelFileRefused(f"{name}: {target.name} unpacks to less than it declares")


def _put(file: Path, into: Path) -> Path:
    target = into / file.name
    os.replace(file, target)
    return target


def _safe_name(name: str) -> str:
    """A file name without signs that a shell, a browser or another system would read as more than a name."""
    suffix = PurePosixPath(name).suffix
    stem = re.sub(r"[^\w \-.()]", "_", name.removesuffix(suffix)).strip(" .")
    return (stem[:120] or "voice") + suffix.lower()


def _shown(entry: zipfile.ZipInfo) -> str:
    return repr(entry.filename[:100])
