"""Files that attack: real payloads, sizes that lie, and forms that two readers would understand differently.

Each case is a file's bytes, the suffix that says which reader it is for, and a pattern of the reason that must be told.
The payload of all of them creates a file named in `proof`.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
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


def all_cases(proof: Path) -> list[Case]:
    cases = [*_payloads(proof), *_pickles(), *_views(), *_zips(proof), *_legacy(proof)]
    return [*cases, *_archives(proof), *_arrays(proof), *_indices(), *_safetensors()]


# -- torch files ------------------------------------------------------------------------------------------------------


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


def _payloads(proof: Path) -> list[Case]:
    evil = Payload(proof)
    command = text(f"touch {proof}")
    call = b"cposix\nsystem\n" + command + b"\x85R"
    python = text(f"__import__('pathlib').Path({str(proof)!r}).touch()")
    cases = [
        Case("reduce", ".pth", saved(evil), "wants to run posix.system"),
        Case("reduce-deep", ".pth", saved({"weight": {"a": torch.ones(2), "b": [{"deep": evil}]}}), "posix.system"),
        Case("reduce-legacy", ".pth", saved({"weight": evil}, zipped=False), "posix.system"),
        Case("reduce-bare", ".pth", pickle.dumps(evil, protocol=2), "posix.system"),
        Case("setstate", ".pth", saved({"weight": Sleeper(proof)}), "Sleeper"),
        Case("in-storage-id", ".pth", torch_zip(b"\x80\x02(" + text("storage") + call + b"tQ."), "posix.system"),
        Case("in-storage-key", ".pth", torch_zip(whole(view(storage(1, extra=call), [1], [1]))), "posix.system"),
        Case("as-shape", ".pth", torch_zip(b"\x80\x02" + storage(1) + call + b"."), "posix.system"),
        Case(
            "stack-global",
            ".pth",
            torch_zip(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93" + python + b"\x85R."),
            "instruction (PROTO|SHORT_BINUNICODE|STACK_GLOBAL)",
        ),
        Case(
            "stack-global-2",
            ".pth",
            torch_zip(b"\x80\x02" + text("builtins") + text("eval") + b"\x93" + python + b"\x85R."),
            "STACK_GLOBAL",
        ),
        Case("inst", ".pth", torch_zip(b"\x80\x02(" + command + b"iposix\nsystem\n."), "instruction INST"),
        Case("obj", ".pth", torch_zip(b"\x80\x02(cposix\nsystem\n" + command + b"o."), "posix.system"),
        Case("extension", ".pth", torch_zip(b"\x80\x02\x82\x01."), "instruction EXT1"),
        Case("call-of-a-value", ".pth", torch_zip(b"\x80\x02}" + command + b"\x85R."), "no function of torch"),
        Case("new-of-a-value", ".pth", torch_zip(b"\x80\x02}" + command + b"\x85\x81."), "no function of torch"),
        Case(
            "build-on-a-tensor",
            ".pth",
            torch_zip(whole(view(storage(1), [1], [1]) + numbers([HUNDRED_GB]) + b"b"), {"0": b"\0" * 4}),
            "sets the inside",
        ),
        Case(
            "build-on-a-dict",
            ".pth",
            torch_zip(b"\x80\x02ccollections\nOrderedDict\n)R}" + text("__class__") + b"Nsb."),
            "sets the inside",
        ),
    ]
    for module, name in (
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("_codecs", "encode"),
    ):
        content = torch_zip(b"\x80\x02c" + f"{module}\n{name}\n".encode() + python + b"\x85R.")
        cases.append(Case(f"names-{module}.{name}", ".pth", content, f"wants to run {module}.{name}"))
    return cases


def _pickles() -> list[Case]:
    """Structures that cost memory or time before anything runs."""
    deep = b"\x80\x02" + b")" + b"".join(b"2\x86" for _ in range(60))
    pairs = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
    colliding = b"".join(number(n * (2**61 - 1)) + b"N" for n in range(1, 2000))
    return [
        Case("memo-bomb", ".pth", torch_zip(b"\x80\x02]r\xff\xff\xff\xff."), "weight|exported|none of the files"),
        Case("text-of-4-gb", ".pth", torch_zip(b"\x80\x02X\xff\xff\xff\xffa."), "not a readable"),
        Case("bytes-of-100-gb", ".pth", torch_zip(b"\x80\x02\x8e" + struct.pack("<Q", HUNDRED_GB) + b"a."), "readable"),
        Case("number-of-2-gb", ".pth", torch_zip(b"\x80\x02\x8b\xff\xff\xff\x7fa."), "not a readable"),
        Case("duplicate-instruction", ".pth", torch_zip(deep + b"."), "instruction DUP"),
        Case("key-of-nested-tuples", ".pth", torch_zip(b"\x80\x02})" + pairs + b"Ns."), "tuple as a key"),
        Case("colliding-keys", ".pth", torch_zip(b"\x80\x02}(" + colliding + b"u."), "as a key"),
        Case("endless", ".pth", torch_zip(b"\x80\x02" + b"N0" * 600_000 + b"."), "instruction"),
        Case("a-million-lists", ".pth", torch_zip(b"\x80\x02" + b"]" * 1_200_000 + b"."), "instructions"),
        Case("no-end", ".pth", torch_zip(b"\x80\x02}"), "not a readable"),
        Case("empty-stack", ".pth", torch_zip(b"\x80\x02t."), "not a readable"),
        Case("unknown-memo", ".pth", torch_zip(b"\x80\x02h\x05."), "not a readable"),
        Case("append-to-none", ".pth", torch_zip(b"\x80\x02NNa."), "not a readable"),
        Case("structure-of-20-mb", ".pth", torch_zip(b"\x80\x02" + b"N" * 20_000_000), "structure of"),
    ]


def _views() -> list[Case]:
    one = {"0": b"\0" * 4}
    shared = view(storage(2**18), [2**18], [1])
    return [
        Case("shape-of-100-gb", ".pth", torch_zip(whole(view(storage(1), [25 * 10**9], [0])), one), "larger than its"),
        Case("shape-lies", ".pth", torch_zip(whole(view(storage(1), [2, 3], [3, 1])), one), "larger than its storage"),
        Case("stride-beyond", ".pth", torch_zip(whole(view(storage(4), [2, 2], [9, 1])), {"0": b"\0" * 16}), "larger"),
        Case("offset-beyond", ".pth", torch_zip(whole(view(storage(1), [1], [1], offset=5)), one), "larger"),
        Case("negative-stride", ".pth", torch_zip(whole(view(storage(1), [1], [-1])), one), "torch never writes"),
        Case("negative-shape", ".pth", torch_zip(whole(view(storage(1), [-1], [1])), one), "torch never writes"),
        Case("overflowing-shape", ".pth", torch_zip(whole(view(storage(1), [2**63, 2], [0, 0])), one), "never writes"),
        Case("many-dimensions", ".pth", torch_zip(whole(view(storage(1), [1] * 90, [1] * 90)), one), "never writes"),
        Case("hooks", ".pth", torch_zip(whole(view(storage(1), [1], [1], rest=b"\x89](K\x01e")), one), "never writes"),
        Case(
            "storage-of-100-gb",
            ".pth",
            torch_zip(whole(view(storage(25 * 10**9), [1], [1])), one),
            "claims 100000000000",
        ),
        Case("storage-missing", ".pth", torch_zip(whole(view(storage(1, "7"), [1], [1])), one), "does not hold"),
        Case("storage-elsewhere", ".pth", torch_zip(whole(view(storage(1, "../x"), [1], [1])), one), "does not hold"),
        Case("storage-negative", ".pth", torch_zip(whole(view(storage(-1), [1], [1])), one), "torch never writes"),
        Case(
            "storage-twice",
            ".pth",
            torch_zip(whole(b"](" + storage(1) + storage(1, kind="HalfStorage") + b"e"), one),
            "twice and differently",
        ),
        Case(
            "one-storage-as-2000-tensors",
            ".pth",
            torch_zip(whole(b"](" + shared * 2000 + b"e"), {"0": b"\0" * 2**20}),
            "shows 1048576 bytes as tensors of 2097152000",
        ),
    ]


# -- zips -------------------------------------------------------------------------------------------------------------


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


def _zips(proof: Path) -> list[Case]:
    good = saved({"weight": {"a": torch.arange(6.0)}})
    plain = torch_zip(b"\x80\x02}.", {"0": b"\0" * 24, "1": b"\0" * 8})
    end, central, local = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
    zeros = b"\0" * 60_000_000
    evil = saved(Payload(proof))
    cases = [
        Case("deflated-bomb", ".pth", zipped([("a/data.pkl", b"\x80\x02}."), ("a/data/0", zeros)], 8), "compressed"),
        Case("two-of-one-name", ".pth", plain.replace(b"archive/data/1", b"archive/data/0"), "of one name"),
        Case("local-name-differs", ".pth", patched(plain, b"archive/version", 0, b"archive/verse1n"), "two names"),
        Case("encrypted", ".pth", patched(plain, central, 8, b"\x01\0"), "encrypted"),
        Case(
            "size-lies",
            ".pth",
            patched(plain, central, 20, struct.pack("<LL", 2**31, 2**31), 1),
            "more bytes than it has",
        ),
        Case("compressed-size-lies", ".pth", patched(plain, central, 20, struct.pack("<L", 3)), "compressed"),
        Case("overlap", ".pth", patched(plain, central, 42, struct.pack("<L", 0), 1), "overlaps|two names"),
        Case("header-elsewhere", ".pth", patched(plain, central, 42, struct.pack("<L", 5), 1), "overlaps|begin"),
        Case("method-unknown", ".pth", patched(plain, central, 10, b"\x0e\0"), "compressed"),
        Case("zip-comment", ".pth", patched(plain, end, 20, b"\x04\0") + b"more", "torch would not have written"),
        Case("something-before", ".pth", b"#!/bin/sh\n" + good, "no torch file"),
        Case("a-zip-before", ".pth", plain + evil, "torch would not have written"),
        Case("a-zip-behind", ".pth", evil + plain, "torch would not have written"),
        Case("two-of-one-name-but-for-case", ".pth", torch_zip(b"\x80\x02}.", {"a": b"", "A": b""}), "of one name"),
        Case("count-lies", ".pth", patched(plain, end, 10, b"\x01\0"), "lists 1 entries"),
        Case(
            "directory-size-lies", ".pth", patched(plain, end, 12, struct.pack("<L", 2**31)), "refused|readable|written"
        ),
        Case("not-torch", ".pth", zipped([("readme.txt", b"hello")]), "not one that torch wrote"),
        Case("a-million-entries", ".pth", patched(plain, end, 10, b"\xff\xff"), "lists 65535 entries"),
        Case(
            "two-structures", ".pth", zipped([("a/data.pkl", b"\x80\x02}."), ("a/constants.pkl", b".")]), "torch wrote"
        ),
        Case("two-roots", ".pth", zipped([("a/data.pkl", b"\x80\x02}."), ("b/data/0", b".")]), "torch wrote"),
        Case("cut-end", ".pth", good[:-7], "not a readable"),
    ]
    if b"PK\x06\x06" in good:  # torch writes the 64-bit end records
        end64, locator = b"PK\x06\x06", b"PK\x06\x07"
        cases += [
            Case(
                "zip64-place-lies",
                ".pth",
                patched(good, locator, 8, struct.pack("<Q", 8)),
                "torch would not have written",
            ),
            Case("zip64-start-lies", ".pth", patched(good, end64, 48, struct.pack("<Q", 0)), "written|readable"),
            Case("zip64-size-lies", ".pth", patched(good, end64, 40, struct.pack("<Q", 2**60)), "written|readable"),
            Case(
                "zip64-count-lies",
                ".pth",
                patched(good, end64, 32, struct.pack("<Q", 2**60)),
                "entries; that is no model",
            ),
        ]
    huge = struct.pack("<HHQQ", 1, 16, HUNDRED_GB, HUNDRED_GB)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        entry = zipfile.ZipInfo("archive/data.pkl")
        entry.extra = huge
        archive.writestr(entry, b"\x80\x02}.")
    lied = patched(stream.getvalue(), central, 20, b"\xff" * 8)
    cases.append(Case("zip64-entry-of-100-gb", ".pth", lied, "more bytes than it has|not a readable"))
    assert local in good
    return cases


def _archives(proof: Path) -> list[Case]:
    """Zips for `open_archive`; those whose voices are sound stand in the tests of the tools."""
    evil, deflated = saved(Payload(proof)), zipfile.ZIP_DEFLATED
    good = zipped([("x.pth", b"\0" * 3000), ("y.pth", b"\0" * 3000)], deflated)
    central = b"PK\x01\x02"
    bomb = zipped([("x.pth", b"\0" * 60_000_000)], deflated)
    liar = patched(bomb, central, 24, struct.pack("<L", 50_000))  # claims less than it unpacks to
    giant = patched(bomb, central, 24, struct.pack("<L", 2**32 - 2))
    link = zipfile.ZipInfo("x.pth")
    link.external_attr = 0o120777 << 16
    linked = io.BytesIO()
    with zipfile.ZipFile(linked, "w") as archive:
        archive.writestr(link, "/etc/passwd")

    def case(name: str, content: bytes, reason: str) -> Case:
        return Case(f"archive-{name}", ".zip", content, reason)

    return [
        case("payload", zipped([("x.pth", evil)], deflated), "posix.system"),
        case("bomb", bomb, "unpacks more than 100-fold"),
        case("bomb-that-claims-less", liar, "readable zip|less than|CRC"),
        case("bomb-that-claims-more", giant, "unpacks more than 100-fold"),
        case("bomb-as-card", zipped([("voice.json", b" " * 60_000_000)], deflated), "100-fold"),
        case("overlap", patched(good, central, 42, struct.pack("<L", 0), 1), "overlaps|readable"),
        case("encrypted", patched(good, central, 8, b"\x01\0"), "encrypted"),
        case("method-unknown", patched(good, central, 10, b"\x63\0"), "rare way"),
        case("lzma", zipped([("x.pth", b"hello")], zipfile.ZIP_LZMA), "rare way"),
        case("bzip2-bomb", zipped([("x.pth", b"\0" * 9_000_000)], zipfile.ZIP_BZIP2), "rare way|100-fold"),
        case("link", linked.getvalue(), "link or a device"),
        case("parent", zipped([("a/../../x.pth", b"x")]), "leave its folder"),
        case("absolute", zipped([("/tmp/x.pth", b"x")]), "leave its folder"),
        case("backslash", zipped([("..\\..\\x.pth", b"x")]), "leave its folder"),
        case("drive", zipped([("C:\\x.pth", b"x")]), "leave its folder"),
        case("two-of-one-name", good.replace(b"y.pth", b"x.pth"), "two entries named"),
        case("many-entries", zipped([(f"{n}.txt", b"") for n in range(300)]), "300 entries"),
        case("many-models", zipped([(f"{n}.pth", b"x") for n in range(9)]), "9 model files"),
        case("nothing", zipped([("readme.txt", b"hello")]), "no model file"),
        case("zip-in-zip", zipped([("inner.zip", zipped([("x.pth", evil)]))]), "no model file"),
        case("card-of-no-json", zipped([("voice.json", b"{")]), "no JSON"),
        case("card-is-a-list", zipped([("voice.json", b"[]")]), "no JSON object"),
        case("card-nested", zipped([("voice.json", b"[" * 100_000)]), "no JSON"),
        case("a-model", saved({"weight": {}}), "itself a model file"),
        case("no-zip", b"hello", "no readable zip"),
        case("cut", good[:-9], "no readable zip"),
    ]


def _legacy(proof: Path) -> list[Case]:
    good = saved({"weight": torch.zeros(1000)}, zipped=False)
    head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    machine = pickle.dumps({"protocol_version": 1001, "little_endian": True}, protocol=2)
    with_view = storage(1, extra=b"N")
    lists = b"\x80\x02]" + text("0") + b"a."

    def legacy(structure: bytes, keys: bytes = lists, tail: bytes = struct.pack("<q", 1) + b"\0" * 4) -> bytes:
        return head + machine + structure + keys + tail

    body = whole(view(with_view, [1], [1]))
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            data = pickle.dumps(Payload(proof), protocol=2)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    items = good.replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f")
    return [
        Case("legacy-size-lies", ".pth", items, "not as large as it claims"),
        Case(
            "legacy-storage-of-100-gb", ".pth", legacy(whole(view(storage(25 * 10**9, extra=b"N"), [1], [1]))), "claims"
        ),
        Case(
            "legacy-both-lie",
            ".pth",
            legacy(
                whole(view(storage(25 * 10**9, extra=b"N"), [1], [1])), tail=struct.pack("<q", 25 * 10**9) + b"\0" * 4
            ),
            "claims 100000000",
        ),
        Case("legacy-keys-lie", ".pth", legacy(body, b"\x80\x02]."), "other storages"),
        Case("legacy-keys-twice", ".pth", legacy(body, b"\x80\x02](" + text("0") * 2 + b"e."), "other storages"),
        Case("legacy-cut", ".pth", good[:-4], "claims"),
        Case(
            "legacy-part-of-a-storage",
            ".pth",
            legacy(whole(view(storage(1, extra=b"K\x01"), [1], [1]))),
            "never writes",
        ),
        Case("legacy-payload-behind", ".pth", head + machine + pickle.dumps(Payload(proof), 2), "posix.system"),
        Case("legacy-payload-as-machine", ".pth", head + pickle.dumps(Payload(proof), 2), "posix.system"),
        Case("tar", ".pth", tar.getvalue(), "tar form"),
        Case("text", ".pth", b"hello, I am no model", "no torch file"),
        Case("empty", ".pth", b"", "no torch file"),
    ]


# -- arrays, indices, safetensors -------------------------------------------------------------------------------------


def npy_header(header: str, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + struct.pack("<H", len(header)) + header.encode()


def _arrays(proof: Path) -> list[Case]:
    objects = io.BytesIO()
    np.save(objects, np.array([Payload(proof)], dtype=object), allow_pickle=True)
    good = io.BytesIO()
    np.save(good, np.zeros((4, 8), np.float32))

    def claims(shape: str, descr: str = "'<f4'") -> bytes:
        return npy_header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n") + b"\0" * 64

    return [
        Case("objects", ".npy", objects.getvalue(), "Python objects are never read"),
        Case("shape-of-100-gb", ".npy", claims(f"({HUNDRED_GB // 4},)"), "claims an array of 100000000000 bytes"),
        Case("overflowing-shape", ".npy", claims(f"({2**62}, {2**62})"), "claims an array"),
        Case("negative-shape", ".npy", claims("(-4, -4)"), "claims the shape"),
        Case("shape-of-text", ".npy", claims("('a',)"), "no readable|claims the shape"),
        Case("records", ".npy", claims("(4,)", "[('a', '<f4'), ('b', 'O')]"), "not numbers"),
        Case("code-in-the-header", ".npy", claims(f"(__import__('os').system('touch {proof}'),)"), "no readable"),
        Case("nested-header", ".npy", npy_header("(" * 9000 + ")" * 9000), "no readable"),
        Case("header-of-1-mb", ".npy", npy_header("{" + " " * 60_000 + "}"), "no readable"),
        Case("longer-than-claimed", ".npy", good.getvalue() + b"\0", "claims an array of 128 bytes and has 129"),
        Case("cut", ".npy", good.getvalue()[:-1], "claims an array of 128 bytes and has 127"),
        Case("header-of-no-end", ".npy", npy_header("{'descr': '<f4', \n("), "no readable"),
        Case("cut-header", ".npy", good.getvalue()[:20], "no readable"),
        Case("pickle", ".npy", pickle.dumps(Payload(proof)), "no readable"),
    ]


def _faiss_bytes(index: Any) -> bytes:
    return bytes(faiss.serialize_index(index).tobytes())


def _indices() -> list[Case]:
    rows = np.random.default_rng(0).standard_normal((80, 4)).astype(np.float32)
    flat = faiss.IndexFlatL2(4)
    flat.add(rows)
    good = _faiss_bytes(flat)
    ivf = faiss.index_factory(4, "IVF2,Flat")
    ivf.train(rows)
    ivf.add(rows)
    mapped = faiss.clone_index(ivf)
    mapped.make_direct_map()
    named = faiss.IndexIDMap2(faiss.IndexFlatL2(4))
    named.add_with_ids(rows, np.arange(80))
    odd = faiss.index_factory(4, "IVF2,Flat")
    odd.train(rows)
    odd.add_with_ids(rows, np.arange(80) * 1000)
    many = struct.pack("<q", HUNDRED_GB // 16)
    inner = faiss.IndexFlatIP(4)
    inner.add(rows)
    return [
        Case("flat-rows-lie", ".index", patched(good, b"IxF2", 8, many), "cannot hold"),
        Case("flat-values-lie", ".index", patched(good, b"IxF2", 37, many), "do not fit its header"),
        Case("width-lies", ".index", patched(good, b"IxF2", 4, struct.pack("<i", 2**30)), "cannot hold"),
        Case("width-is-negative", ".index", patched(good, b"IxF2", 4, struct.pack("<i", -4)), "cannot hold"),
        Case("rows-lie", ".index", patched(_faiss_bytes(ivf), b"IwFl", 8, many), "cannot hold"),
        Case("lists-of-100-gb", ".index", patched(_faiss_bytes(ivf), b"IwFl", 37, many), "names 6250000000 lists"),
        Case("nprobe-lies", ".index", patched(_faiss_bytes(ivf), b"IwFl", 45, many), "would search"),
        Case("list-size-lies", ".index", patched(_faiss_bytes(ivf), b"full", 12, many), "add up"),
        Case("direct-map", ".index", _faiss_bytes(mapped), "direct map"),
        Case("id-map", ".index", _faiss_bytes(named), "id map"),
        Case("ids-with-gaps", ".index", _faiss_bytes(odd), "beyond the last"),
        Case("inner-product", ".index", _faiss_bytes(inner), "inner products"),
        Case("no-vectors", ".index", _faiss_bytes(faiss.index_factory(4, "Flat")), "no vectors"),
        Case("hnsw", ".index", _faiss_bytes(faiss.index_factory(4, "HNSW8")), "neither"),
        Case("bytes-behind", ".index", good + b"\0" * 100, "follow its content"),
        Case("cut", ".index", good[:-1], "ends before|cannot hold"),
        Case("pickle", ".index", pickle.dumps([1, 2, 3]), "refused"),
        Case("empty", ".index", b"", "refused"),
    ]


def safetensors(
    tensors: dict[str, tuple[str, list[Any], list[Any]]], data: bytes = b"\0" * 8, **metadata: str
) -> bytes:
    about = {
        "format": "voicewright-voice",
        "format_version": "1",
        "kind": "rvc",
        "config": "{}",
        "sample_rate": "40000",
        "content_encoder": "null",
        "order": json.dumps(list(tensors)),
    } | metadata
    header: dict[str, Any] = {"__metadata__": about}
    for name, (dtype, shape, offsets) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return raw_safetensors(json.dumps(header).encode(), data)


def raw_safetensors(header: bytes, data: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def _safetensors() -> list[Case]:
    two = {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [4, 8])}
    good = safetensors(two)
    doubled = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    )
    make: Callable[..., Case] = lambda name, content, reason: Case(name, ".safetensors", content, reason)  # noqa: E731
    return [
        make("header-of-100-gb", raw_safetensors(b"{}", length=HUNDRED_GB), "claims 100000000000 bytes"),
        make("header-overflows", raw_safetensors(b"{}", length=2**63), "claims"),
        make("header-cut", good[:40], "claims"),
        make("header-is-a-list", raw_safetensors(b"{}  ")[:8] + b"{{}}", "not readable"),
        make("header-nested", raw_safetensors(b'{"a":' * 100_000), "not readable"),
        make("doubled-name", raw_safetensors(doubled, b"\0" * 4), "twice"),
        make("shape-lies", safetensors({"a": ("F32", [25 * 10**9], [0, 8])}), "cannot hold"),
        make("shape-overflows", safetensors({"a": ("F32", [2**33, 2**33], [0, 8])}), "cannot hold"),
        make("shape-is-negative", safetensors({"a": ("F32", [-1, -2], [0, 8])}), "cannot hold"),
        make("shape-is-a-float", safetensors({"a": ("F32", [2.0], [0, 8])}), "cannot hold"),
        make("size-lies", safetensors({"a": ("F32", [1], [0, 8])}), "claims shape"),
        make("offset-beyond", safetensors({"a": ("F32", [2], [8, 16])}), "cannot hold"),
        make("overlap", safetensors({"a": ("F32", [2], [0, 8]), "b": ("F32", [1], [4, 8])}), "overlaps"),
        make("gap", safetensors({"a": ("F32", [1], [4, 8])}), "overlaps another tensor or leaves a gap"),
        make("backwards", safetensors({"a": ("F32", [1], [8, 4])}), "claims"),
        make("bytes-behind", good + b"\0", "fill 8 bytes of 9"),
        make("cut", good[:-1], "cannot hold|fill"),
        make("unknown-type", safetensors({"a": ("F4", [1], [0, 8])}), "of type"),
        make("entry-of-no-form", raw_safetensors(b'{"a": 3}'), "not described"),
        make(
            "no-voice",
            raw_safetensors(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', b"\0" * 4),
            "not a voice",
        ),
        make("newer", safetensors(two, format_version="2"), "newer program"),
        make("order-lies", safetensors(two, order='["a"]'), "order"),
        make("config-broken", safetensors(two, config="{"), "refused"),
        make("kind-unknown", safetensors(two, kind="exec"), "kind"),
        make("no-network", good, "list of 18|speaker table"),
    ]
