"""What hostile files are made of: payloads, pickles by hand, zips by hand."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

HUNDRED_GB = 100 * 10**9


@dataclass(frozen=True)
class Case:
    name: str
    suffix: str
    content: bytes
    reason: str


class Payload:
    """Pickles to a call of `os.system`."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


class Sleeper:
    """Does its harm when its state is set, not when it is built."""

    def __init__(self, proof: Path) -> None:
        self.proof = str(proof)

    def __setstate__(self, state: dict[str, str]) -> None:
        Path(state["proof"]).touch()


def saved(value: Any, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def torch_zip(structure: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A torch file of a structure made by hand."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        for key, content in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", content)
        archive.writestr("archive/version", b"3\n")
    return stream.getvalue()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(values: list[int]) -> bytes:
    return b"(" + b"".join(number(value) for value in values) + b"t"


def storage(items: int, key: str = "0", kind: str = "FloatStorage", extra: bytes = b"") -> bytes:
    return (
        b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + number(items) + extra + b"tQ"
    )


def view(held: bytes, shape: list[int], stride: list[int], offset: int = 0, rest: bytes = b"\x89" + b"}") -> bytes:
    hooks = rest if rest != b"\x89}" else b"\x89ccollections\nOrderedDict\n)R"
    arguments = held + number(offset) + numbers(shape) + numbers(stride) + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tR"


def whole(value: bytes) -> bytes:
    """`{"weight": value}` as a pickle."""
    return b"\x80\x02}" + text("weight") + value + b"s."


def zipped(files: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return stream.getvalue()


def patched(content: bytes, mark: bytes, offset: int, new: bytes, which: int = 0) -> bytes:
    """`new` written `offset` bytes after the occurrence number `which` of `mark`."""
    at = -1
    for _ in range(which + 1):
        at = content.index(mark, at + 1)
    at += offset
    return content[:at] + new + content[at + len(new) :]
