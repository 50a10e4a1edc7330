"""What does a header claim, and is the file all there? Only for warnings: lengths are counted, never believed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Literal

from libs.audio.sniff import HEAD_BYTES, find_mp3_frame, id3_length, mp3_frame

_MP4_FAMILIES = ("m4a", "mp4", "mov")
_STREAMED_FROM = 0x7FFFF000
"""WAV sizes from here on are what recorders write that do not know the length."""


def claimed_seconds(path: Path, family: str) -> float | None:
    """The length that a wav's or mp3's header states, or None where it states none (streamed wav, mp3 without Xing)."""
    with path.open("rb") as file:
        return _wav_seconds(file) if family == "wav" else _mp3_seconds(file)


def is_cut(path: Path, family: str) -> bool:
    """True for an Ogg file whose last page is not complete. Other formats show their damage while decoding."""
    if family not in ("ogg", "opus"):
        return False
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        # a page has at most 65,307 bytes
        start = max(0, size - 131_072)
        file.seek(start)
        tail = file.read()
    at = tail.rfind(b"OggS")
    if at < 0 or at + 27 > len(tail):
        return True
    segments = tail[at + 26]
    return at + 27 + segments + sum(tail[at + 27 : at + 27 + segments]) > len(tail)


def lacks_index(path: Path, family: str) -> bool:
    """True for an mp4, m4a or mov whose `moov` box is missing, as in uploads that ended early."""
    if family not in _MP4_FAMILIES:
        return False
    with path.open("rb") as file:
        size, at = os.fstat(file.fileno()).st_size, 0
        for _box in range(1000):
            file.seek(at)
            head = file.read(16)
            if len(head) < 8:
                return True
            if head[4:8] == b"moov":
                return at + int.from_bytes(head[:4], "big") > size
            length = int.from_bytes(head[:4], "big")
            if length == 1:
                length = int.from_bytes(head[8:16], "big")
            if length < 8:
                return True
            at += length
    return True


def _wav_seconds(file: IO[bytes]) -> float | None:
    head = file.read(HEAD_BYTES)
    if head[:4] in (b"RF64", b"BW64"):
        return None
    order: Literal["big", "little"] = "big" if head[:4] == b"RIFX" else "little"
    byte_rate, at = 0, 12
    while at + 8 <= len(head):
        size = int.from_bytes(head[at + 4 : at + 8], order)
        if head[at : at + 4] == b"fmt ":
            byte_rate = int.from_bytes(head[at + 16 : at + 20], order)
        if head[at : at + 4] == b"data":
            if not byte_rate or size == 0 or size >= _STREAMED_FROM:
                return None
            return size / byte_rate
        at += 8 + size + size % 2
    return None


def _mp3_seconds(file: IO[bytes]) -> float | None:
    head = file.read(HEAD_BYTES)
    file.seek(id3_length(head))
    head = file.read(HEAD_BYTES)
    start = find_mp3_frame(head)
    if start is None:
        return None
    frame = mp3_frame(head, start)
    assert frame is not None
    per_frame = 1152 if frame.version == 3 else 576
    for tag, offset in ((b"Xing", 8), (b"Info", 8), (b"VBRI", 14)):
        at = head.find(tag, start, start + 64)
        if at < 0 or (tag != b"VBRI" and not head[at + 7] & 1):
            continue
        return int.from_bytes(head[at + offset : at + offset + 4], "big") * per_frame / frame.sample_rate
    return None
