"""Arrays, indices and safetensors that attack."""

from __future__ import annotations

import io
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tests.unit.voice.hostile.parts import HUNDRED_GB, Case, Payload, patched


def cases(proof: Path) -> list[Case]:
    return [*_arrays(proof), *_indices(), *_safetensors()]


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
