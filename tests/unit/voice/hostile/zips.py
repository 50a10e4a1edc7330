"""Zips that attack: torch files with two meanings, archives that leave their folder, bombs."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import torch

from tests.unit.voice.hostile.parts import HUNDRED_GB, Case, Payload, patched, saved, torch_zip, zipped


def cases(proof: Path) -> list[Case]:
    return [*_zips(proof), *_archives(proof)]


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
