"""How is a torch file opened without trusting it? The only place with `torch.load`.

Two gates. First `inspect`: the pickle inside is read by a reader of our own that runs nothing (pickle_reader.py), and
every storage, view and zip entry that the file declares is compared with the bytes that are really there. Only then
`torch.load(weights_only=True)` on the same open file, with inert stand-ins for the few classes that old files mention.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch

from libs.common.errors import ModelFileRefused, NotFound
from libs.voice.pickle_reader import MAX_PICKLE_BYTES, PickleReader, Storage
from libs.voice.zip_layout import require_torch_layout, torch_directory

MAX_FILE_BYTES = 8 * 2**30
MAX_VOICE_BYTES = 2**30
"""What a voice may have; 38 million numbers, as RVC's largest has in training, are 0.15 GB in single precision."""
MAX_TRAINING_BYTES = 2 * 2**30
"""What a training checkpoint may have: weights and AdamW's two moments are three times the weights."""
MAX_SHARING = 4
_SHARING_SLACK = 16 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_ZIP = b"PK\x03\x04"
_TAR_AT, _TAR = 257, b"ustar"

FAIRSEQ_STUBS = ("fairseq.data.dictionary.Dictionary", "argparse.Namespace")
"""Classes that fairseq's own checkpoints name; given as `stubs` they become inert."""


class Inert:
    """Stands for a class that a file names and that must never be imported: it takes any state and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def load_tensors(path: Path, *, stubs: Sequence[str] = (), max_bytes: int = MAX_FILE_BYTES) -> Any:
    """What the torch file at `path` holds, on the CPU: tensors in plain containers, numbers and text.

    `stubs`: full names of classes that become `Inert` (see FAIRSEQ_STUBS). It costs memory for the tensors and at most
    a few hundred MB beside them, whatever the file claims. Raises NotFound without a file, and ModelFileRefused for
    anything that is not made of tensors, numbers, text and containers only, whose declared sizes do not fit its bytes,
    or that is larger than `max_bytes`.
    """
    with _opened(path) as file:
        _inspect(file, path.name, stubs, max_bytes)
        file.seek(0)
        with torch.serialization.safe_globals([(Inert, name) for name in stubs]):
            try:
                return torch.load(file, map_location="cpu", weights_only=True)
            except Exception as error:  # what the first gate lets through and torch still refuses is a refusal
                raise ModelFileRefused(f"{path.name} is not a readable torch file: {_first_line(error)}") from error


def inspect(path: Path, *, stubs: Sequence[str] = (), max_bytes: int = MAX_FILE_BYTES) -> None:
    """Check the file at `path` without building a tensor or importing a name; errors as `load_tensors`."""
    with _opened(path) as file:
        _inspect(file, path.name, stubs, max_bytes)


def _opened(path: Path) -> IO[bytes]:
    if not path.is_file():
        raise NotFound(f"there is no model file {path.name}")
    return path.open("rb")


def _inspect(file: IO[bytes], name: str, stubs: Sequence[str], max_bytes: int) -> None:
    size = os.fstat(file.fileno()).st_size
    if size > max_bytes:
        raise ModelFileRefused(f"{name} has {size} bytes; the limit is {max_bytes}")
    head = file.read(_TAR_AT + len(_TAR))
    file.seek(0)
    try:
        # the same bytes decide as in torch: a zip that hides behind something else is not read as a zip
        if head.startswith(_ZIP):
            _inspect_zip(file, name, size, stubs)
        elif head[_TAR_AT:] == _TAR:
            raise ModelFileRefused(
                f"{name} is of the tar form that torch left in 2017; save it again with a newer torch"
            )
        else:
            _inspect_legacy(file, name, size, stubs)
    except ModelFileRefused:
        raise
    except Exception as error:  # whatever a hostile file provokes in the reader is a refusal
        raise ModelFileRefused(f"{name} is not a readable torch file: {_first_line(error)}") from error


def _inspect_zip(file: IO[bytes], name: str, size: int, stubs: Sequence[str]) -> None:
    directory = torch_directory(file, size, name)
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        require_torch_layout(file, directory, entries, name)
        held = {entry.filename: entry.file_size for entry in entries}
        root = entries[0].filename.partition("/")[0] + "/" if entries else ""
        structure = f"{root}data.pkl"
        pickles = [each for each in held if each.endswith(".pkl")]
        if pickles != [structure] or not all(each.startswith(root) for each in held):
            raise ModelFileRefused(f"{name} is a zip file, and not one that torch wrote")
        if held[structure] > MAX_PICKLE_BYTES:
            raise ModelFileRefused(f"{name} holds a structure of {held[structure]} bytes; that is no model")
        reader = PickleReader(io.BytesIO(archive.read(structure)), name, stubs)
        reader.read()
    for storage in reader.storages.values():
        there = held.get(f"{root}data/{storage.key}")
        if not re.fullmatch(r"[0-9]{1,20}", storage.key) or there is None:
            raise ModelFileRefused(f"{name} names a storage {storage.key[:20]!r} that it does not hold")
        if storage.size != there:
            raise ModelFileRefused(f"{name}: storage {storage.key} claims {storage.size} bytes and has {there}")
    _require_own(reader, name)


def _inspect_legacy(file: IO[bytes], name: str, size: int, stubs: Sequence[str]) -> None:
    """The form before torch 1.6: five pickles (magic, protocol, machine, structure, keys), then the storages.

    Each storage is its number of items (int64) and its bytes, in the order of the keys.
    """
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    if _magic(head, name) != _LEGACY_MAGIC:
        raise ModelFileRefused(f"{name} is no torch file")
    PickleReader(head, name).read()  # protocol
    machine = PickleReader(head, name).read()
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise ModelFileRefused(f"{name} was written by a machine of another byte order; save it again on this one")
    reader = PickleReader(head, name, stubs)
    reader.read()
    keys = PickleReader(head, name).read()
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or len(keys) != len(set(keys)) or set(keys) != reader.storages.keys():
        raise ModelFileRefused(f"{name} keeps other storages than it declares")
    _walk_legacy_storages(file, head.tell(), size, [reader.storages[key] for key in keys], name)
    _require_own(reader, name)


def _magic(head: io.BytesIO, name: str) -> Any:
    try:
        return PickleReader(head, name).read()
    except ModelFileRefused:
        raise
    except Exception:  # it does not even begin with a pickle
        return None


def _walk_legacy_storages(file: IO[bytes], offset: int, size: int, storages: list[Storage], name: str) -> None:
    for storage in storages:
        file.seek(offset)
        count = file.read(8)
        if len(count) != 8 or struct.unpack("<q", count)[0] != storage.items:
            raise ModelFileRefused(f"{name}: storage {storage.key[:20]} is not where or not as large as it claims")
        offset += 8 + storage.size
        if offset > size:
            raise ModelFileRefused(f"{name} claims {offset} bytes of tensors and has {size} bytes in all")


def _require_own(reader: PickleReader, name: str) -> None:
    """Tensors may share a storage, but not so often that copying each makes much of little."""
    stored = _total(reader.storages)
    if reader.view_bytes > MAX_SHARING * stored + _SHARING_SLACK:
        raise ModelFileRefused(f"{name} shows {stored} bytes as tensors of {reader.view_bytes} bytes; that is no model")


def _total(storages: Mapping[str, Storage]) -> int:
    return sum(storage.size for storage in storages.values())


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
