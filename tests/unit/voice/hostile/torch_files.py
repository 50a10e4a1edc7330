"""Torch files that attack: payloads, structures that cost, views and storages that lie, the forms of old torch."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import torch

from tests.unit.voice.hostile.parts import (
    HUNDRED_GB,
    Case,
    Payload,
    Sleeper,
    number,
    numbers,
    saved,
    storage,
    text,
    torch_zip,
    view,
    whole,
)


def cases(proof: Path) -> list[Case]:
    return [*_payloads(proof), *_pickles(), *_mentions(), *_views(), *_legacy(proof)]


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


def _mentions() -> list[Case]:
    """Few bytes that are thousands of millions of values, or gigabytes of text, for whoever walks them."""
    many: list[Any] = [1]
    for _ in range(4):
        many = [many] * 300
    wide: list[Any] = [["long" * 2**19] * 64] * 64
    weight = {"emb_g.weight": torch.ones(109, 256)}
    voice = {"weight": weight, "sr": "40k", "f0": 1, "version": "v2"}
    return [
        Case("mentions", ".pth", saved({**voice, "config": many}), "not RVC's list of 18"),
        Case("mentions-in-a-place", ".pth", saved({**voice, "config": [many] * 18}), "not RVC's list of 18"),
        Case("mentions-of-text", ".pth", saved({**voice, "config": wide}), "not RVC's list of 18"),
        Case("mentions-lite", ".pth", saved({"kind": "lite", "weight": weight, "config": {"fft": many}}), "no config"),
        Case("mentions-version", ".pth", saved({**voice, "version": many}), "not RVC's list of 18"),
    ]


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
