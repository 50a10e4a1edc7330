"""What does the pickle in a torch file say? Read by a machine that knows 30 instructions and a dozen names.

Nothing is imported, called or built but plain containers: every name outside the list ends the reading, and so does
every instruction that torch does not write (`STACK_GLOBAL`, `INST`, extension codes, …). Source of the instructions:
the standard library's `pickletools`.
"""

from __future__ import annotations

import io
import math
import pickletools
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from libs.common.errors import ModelFileRefused

MAX_PICKLE_BYTES = 16 * 2**20
MAX_DIMENSIONS = 16
MAX_INSTRUCTIONS = 1_000_000
"""A full training checkpoint with its optimizer has about 100,000."""

ITEM_BYTES = {
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


@dataclass(frozen=True)
class Storage:
    """A block of numbers that the pickle declares: its key in the file, bytes per item, and how many items."""

    key: str
    item_bytes: int
    items: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.items * self.item_bytes


@dataclass(frozen=True)
class _StorageType:
    item_bytes: int


@dataclass(frozen=True)
class _View:
    """What a pickled tensor claims: a view of a storage."""

    storage: Storage


class _Inert:
    """Whatever an inert class was given."""


class _Mark:
    """Where a list of arguments begins on the stack."""


_Value = Any
_Call = Callable[..., _Value]
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSHED = ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING")
_EMPTY: dict[str, Callable[[], _Value]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class PickleReader:
    """Reads one pickle from `stream`. `name` is for messages; `stubs` are full names of classes that stay inert.

    After `read`, `storages` has every declared storage by key, and `view_bytes` the bytes of all tensors together.
    """

    def __init__(self, stream: io.BytesIO, name: str, stubs: Sequence[str] = ()) -> None:
        self.storages: dict[str, Storage] = {}
        self.view_bytes = 0
        self._stream = stream
        self._name = name
        self._stubs = frozenset(stubs)
        self._stack: list[_Value] = []
        self._memo: dict[int, _Value] = {}
        self._known: dict[str, _Call] = {
            "collections.OrderedDict": _ordered,
            "torch._utils._rebuild_tensor_v2": self._view,
            "torch._utils._rebuild_parameter": self._parameter,
            "torch.Size": _size,
            "torch.device": _device,
        }

    def read(self) -> _Value:
        """The structure, with tensors as opaque views. Raises ModelFileRefused for what is not on the lists, and
        whatever a damaged pickle provokes (ValueError, IndexError, …)."""
        for number, (opcode, argument, _) in enumerate(pickletools.genops(self._stream)):
            if number >= MAX_INSTRUCTIONS:
                raise ModelFileRefused(f"{self._name} has more than {MAX_INSTRUCTIONS} instructions; that is no model")
            if opcode.name == "STOP":
                return self._pop()
            self._do(opcode.name, argument)
        raise ModelFileRefused(f"{self._name} ends before its structure does")

    def _do(self, code: str, argument: Any) -> None:
        stack = self._stack
        if code in _PUSHED:
            stack.append(argument)
        elif code in _CONSTANTS:
            stack.append(_CONSTANTS[code])
        elif code in _EMPTY:
            stack.append(_EMPTY[code]())
        elif code in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif code == "MARK":
            stack.append(_Mark)
        elif code in _TUPLES:
            stack.append(tuple(reversed([self._pop() for _ in range(_TUPLES[code])])))
        elif code == "TUPLE":
            stack.append(tuple(self._after_mark()))
        elif code in ("APPEND", "APPENDS"):
            values = self._after_mark() if code == "APPENDS" else [self._pop()]
            _of(list, stack[-1]).extend(values)
        elif code in ("SETITEM", "SETITEMS"):
            self._set_items(self._after_mark() if code == "SETITEMS" else [self._pop(), self._pop()][::-1])
        elif code == "GLOBAL":
            stack.append(self._global(argument))
        elif code == "REDUCE":
            arguments, call = _of(tuple, self._pop()), self._pop()
            stack.append(self._reduced(call, arguments))
        elif code == "NEWOBJ":
            _, call = self._pop(), self._pop()
            stack.append(self._reduced(call, None))
        elif code == "BUILD":
            self._build(self._pop())
        elif code == "BINPERSID":
            stack.append(self._storage(self._pop()))
        elif code != "PROTO" or argument != 2:
            raise ModelFileRefused(
                f"{self._name} uses the instruction {code}, which torch never writes: maybe an attack"
            )

    def _pop(self) -> _Value:
        value = self._stack.pop()
        if value is _Mark:
            raise ValueError("a mark stands where a value is needed")
        return value

    def _after_mark(self) -> list[_Value]:
        values = []
        while (value := self._stack.pop()) is not _Mark:
            values.append(value)
        return values[::-1]

    def _set_items(self, pairs: list[_Value]) -> None:
        target = _of(dict, self._stack[-1])
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            # nested tuples and chosen large numbers as keys could cost hours of hashing in a small file
            if not isinstance(key, (str, bytes, int, type(None))) or (isinstance(key, int) and abs(key) >= 2**60):
                raise ModelFileRefused(f"{self._name} uses a {type(key).__name__} as a key, which no model does")
            target[key] = value

    def _global(self, argument: str) -> _Value:
        full = argument.replace(" ", ".", 1)
        if full in self._known:
            return self._known[full]
        if full in ITEM_BYTES:
            return _StorageType(ITEM_BYTES[full])
        if full in self._stubs:
            return _Inert
        raise ModelFileRefused(f"{self._name} wants to run {full[:100]}: it is not only tensors, and may be an attack")

    def _reduced(self, call: _Value, arguments: tuple[_Value, ...] | None) -> _Value:
        if call is _Inert:
            return _Inert()
        if arguments is None or call not in self._known.values():
            raise ModelFileRefused(f"{self._name} calls what is no function of torch: it may be an attack")
        return call(*arguments)

    def _build(self, state: _Value) -> None:
        target = self._stack[-1]
        if isinstance(target, _Inert):
            return
        # module state dicts carry their versions as `_metadata`; a tensor's state could point it beyond its storage
        if not isinstance(target, OrderedDict) or not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise ModelFileRefused(f"{self._name} sets the inside of a {type(target).__name__}: it may be an attack")

    def _storage(self, pid: _Value) -> Storage:
        parts = _of(tuple, pid)
        kind, storage_type, key, location, items = parts[:5]
        plain = kind == "storage" and isinstance(storage_type, _StorageType) and type(items) is int and items >= 0
        if not plain or not isinstance(key, str) or not isinstance(location, str) or any(parts[5:]):
            raise ModelFileRefused(f"{self._name} declares a storage that torch never writes")
        storage = Storage(key, storage_type.item_bytes, items)
        if self.storages.setdefault(key, storage) != storage:
            raise ModelFileRefused(f"{self._name} declares storage {key[:20]} twice and differently")
        return storage

    def _view(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> _View:
        shape, stride = tuple(_of((tuple, list), shape)), tuple(_of((tuple, list), stride))
        plain = len(shape) == len(stride) <= MAX_DIMENSIONS
        plain = plain and all(type(n) is int and 0 <= n < 2**48 for n in (offset, *shape, *stride))
        if not isinstance(storage, Storage) or not plain or any(map(bool, rest[1:])):
            raise ModelFileRefused(f"{self._name} declares a tensor that torch never writes")
        items = math.prod(shape)
        last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) + 1 if items else 0
        if last > storage.items or items > max(storage.items, 1):
            raise ModelFileRefused(f"{self._name}: a tensor of shape {list(shape)} is larger than its storage")
        self.view_bytes += items * storage.item_bytes
        return _View(storage)

    def _parameter(self, view: Any, *rest: Any) -> _View:
        if not isinstance(view, _View) or any(map(bool, rest[1:])):
            raise ModelFileRefused(f"{self._name} declares a parameter that torch never writes")
        return view


def _of(kind: type | tuple[type, ...], value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a {type(value).__name__} stands where another kind of value is needed")
    return value


def _ordered(pairs: Any = ()) -> OrderedDict[Any, Any]:
    if len(pairs):
        raise ValueError("an ordered dict is filled in a way that torch never writes")
    return OrderedDict()


def _size(values: Any = ()) -> tuple[Any, ...]:
    return tuple(_of((tuple, list), values))


def _device(*_: Any) -> _Inert:
    return _Inert()
