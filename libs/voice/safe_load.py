"""How is a torch file opened without trusting it? The only place with `torch.load`.

Two gates. First `inspect`: the pickle inside is read by an unpickler that knows a dozen names and builds nothing but
tuples, and every storage and view that it declares is compared with the bytes that are really there. Only then
`torch.load(weights_only=True)`, with inert stand-ins for the few classes that old files mention.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from libs.common.errors import ModelFileRefused, NotFound

MAX_FILE_BYTES = 8 * 2**30
MAX_PICKLE_BYTES = 64 * 2**20
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_ITEM_BYTES = {
    "torch.FloatStorage": 4,
    "torch.HalfStorage": 2,
    "torch.BFloat16Storage": 2,
    "torch.DoubleStorage": 8,
    "torch.LongStorage": 8,
    "torch.IntStorage": 4,
    "torch.ShortStorage": 2,
    "torch.CharStorage": 1,
    "torch.ByteStorage": 1,
    "torch.BoolStorage": 1,
    "torch.storage.UntypedStorage": 1,
}
FAIRSEQ_STUBS = ("fairseq.data.dictionary.Dictionary", "argparse.Namespace")
"""Classes that fairseq's own checkpoints name; given as `stubs` they become inert."""


class Inert:
    """Stands for a class that a file names and that must never be imported: it takes any state and does nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


@dataclass(frozen=True)
class _StorageType:
    item_bytes: int


@dataclass(frozen=True)
class _Storage:
    key: str
    item_bytes: int
    items: int


@dataclass(frozen=True)
class _View:
    """What a pickled tensor claims: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def load_tensors(path: Path, *, stubs: Sequence[str] = (), max_bytes: int = MAX_FILE_BYTES) -> Any:
    """What the torch file at `path` holds, on the CPU: tensors in plain containers, numbers and text.

    `stubs`: full names of classes that become `Inert` (see FAIRSEQ_STUBS). Raises NotFound without a file, and
    ModelFileRefused for anything that is not made of tensors, numbers, text and containers only, whose declared sizes
    do not fit its bytes, or that is larger than `max_bytes`.
    """
    inspect(path, stubs=stubs, max_bytes=max_bytes)
    with torch.serialization.safe_globals([(Inert, name) for name in stubs]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (
            pickle.UnpicklingError,
            RuntimeError,
            EOFError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise ModelFileRefused(f"{path.name} is not a readable torch file: {_first_line(error)}") from error


def inspect(path: Path, *, stubs: Sequence[str] = (), max_bytes: int = MAX_FILE_BYTES) -> None:
    """Check the file at `path` without building a tensor or importing a name; errors as `load_tensors`."""
    if not path.is_file():
        raise NotFound(f"there is no model file {path.name}")
    size = path.stat().st_size
    if size > max_bytes:
        raise ModelFileRefused(f"{path.name} has {size} bytes; the limit is {max_bytes}")
    try:
        if zipfile.is_zipfile(path):
            _inspect_zip(path, size, stubs)
        else:
            _inspect_legacy(path, size, stubs)
    except ModelFileRefused:
        raise
    except Exception as error:  # whatever a hostile pickle provokes in the reader is a refusal
        raise ModelFileRefused(f"{path.name} is not a readable torch file: {_first_line(error)}") from error


def _inspect_zip(path: Path, size: int, stubs: Sequence[str]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        names = [entry.filename for entry in entries]
        if len(set(names)) != len(names):
            raise ModelFileRefused(f"{path.name} holds two entries of one name")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise ModelFileRefused(f"{path.name} is compressed inside; torch never writes that")
        if sum(entry.file_size for entry in entries) > size:
            raise ModelFileRefused(f"{path.name} declares more bytes than it has")
        pickles = [entry for entry in entries if entry.filename.endswith(".pkl")]
        if len(pickles) != 1 or not pickles[0].filename.endswith("/data.pkl"):
            raise ModelFileRefused(f"{path.name} is a zip file, and not one that torch wrote")
        if pickles[0].file_size > MAX_PICKLE_BYTES:
            raise ModelFileRefused(f"{path.name} holds a structure of {pickles[0].file_size} bytes; that is no model")
        root = pickles[0].filename.removesuffix("data.pkl")
        held = {entry.filename: entry.file_size for entry in entries}
        with archive.open(pickles[0]) as stream:
            reader = _Reader(io.BytesIO(stream.read(MAX_PICKLE_BYTES)), path.name, stubs)
            reader.load()
    for storage in reader.storages.values():
        there = held.get(f"{root}data/{storage.key}", 0)
        if storage.items * storage.item_bytes != there:
            raise ModelFileRefused(
                f"{path.name}: storage {storage.key} claims {storage.items * storage.item_bytes} bytes and has {there}"
            )


def _inspect_legacy(path: Path, size: int, stubs: Sequence[str]) -> None:
    with path.open("rb") as stream:
        if _Reader(stream, path.name, ()).load() != _LEGACY_MAGIC:
            raise ModelFileRefused(f"{path.name} is no torch file")
        _Reader(stream, path.name, ()).load()  # protocol
        _Reader(stream, path.name, ()).load()  # word sizes of the machine that wrote it
        reader = _Reader(stream, path.name, stubs)
        reader.load()
    declared = sum(storage.items * storage.item_bytes for storage in reader.storages.values())
    if declared > size:
        raise ModelFileRefused(f"{path.name} claims {declared} bytes of tensors and has {size} bytes in all")


class _Reader(pickle.Unpickler):
    """Reads the structure of a torch pickle; every name outside the list below ends the reading."""

    def __init__(self, stream: IO[bytes], name: str, stubs: Iterable[str]) -> None:
        super().__init__(stream)
        self.storages: dict[str, _Storage] = {}
        self._name = name
        self._stubs = frozenset(stubs)

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        known: dict[str, Callable[..., Any]] = {
            "collections.OrderedDict": OrderedDict,
            "torch._utils._rebuild_tensor_v2": self._view,
            "torch._utils._rebuild_parameter": _parameter,
            "torch.Size": tuple,
            "torch.device": Inert,
        }
        if full in known:
            return known[full]
        if full in _ITEM_BYTES:
            return _StorageType(_ITEM_BYTES[full])
        if full in self._stubs:
            return Inert
        raise ModelFileRefused(f"{self._name} wants to run {full}: it is not only tensors, and may be an attack")

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _location, items = pid[:5]
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(items, int) or items < 0:
            raise ModelFileRefused(f"{self._name} declares a storage that torch never writes")
        storage = _Storage(str(key), storage_type.item_bytes, items)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ModelFileRefused(f"{self._name} declares storage {storage.key} twice and differently")
        return storage

    def _view(self, storage: Any, offset: Any, shape: Any, stride: Any, *_rest: Any) -> _View:
        shape, stride = tuple(shape), tuple(stride)
        plain = all(isinstance(n, int) and n >= 0 for n in (offset, *shape, *stride))
        if not isinstance(storage, _Storage) or not plain or len(shape) != len(stride):
            raise ModelFileRefused(f"{self._name} declares a tensor that torch never writes")
        items = 1
        for n in shape:
            items *= n
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if items else 0
        if last > storage.items or items > max(storage.items, 1):
            raise ModelFileRefused(f"{self._name}: a tensor of shape {list(shape)} is larger than its storage")
        return _View(storage, offset, shape, stride)


def _parameter(view: Any, *_rest: Any) -> Any:
    return view


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
