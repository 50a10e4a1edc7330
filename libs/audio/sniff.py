"""What kind of sound file is this? Decided from its first bytes, never from its name.

The answer names the FFmpeg demuxers and decoders that may touch the file; `decode.py` allows nothing else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from libs.audio.formats import FAMILIES, FOREIGN, Family
from libs.common.errors import UnsupportedAudio

HEAD_BYTES = 64 * 1024
"""How much of a file `sniff` wants to see. Less is fine when the file is shorter."""

JUNK_BYTES = 4096
"""How far into an mp3 the first frame may lie (padding behind tags)."""

ACCEPTED = "wav, mp3, m4a, mp4, mov, ogg, opus, webm, mkv, flac"

_MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
_MP3_KBPS_V1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MP3_KBPS_V2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)

_PLAYLISTS: tuple[tuple[re.Pattern[bytes], str], ...] = (
    (re.compile(rb"ffconcat\b"), "an ffconcat list of other files"),
    (re.compile(rb"#EXTM3U"), "an HLS or M3U playlist"),
    (re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<MPD\b", re.S), "a DASH manifest"),
    (re.compile(rb"v=0\r?\n[a-z]="), "an SDP session description"),
    (re.compile(rb"\[playlist\]", re.I), "a PLS playlist"),
    (re.compile(rb"<\?xml|<!doctype|<html|<svg|<smil|<asx", re.I), "an XML or HTML document"),
    (re.compile(rb"[^\n]{1,500}\.(png|jpe?g|bmp|gif|webp|tiff?)['\"]?\r?(\n|$)", re.I), "a list of images"),
)


class Mp3Frame(NamedTuple):
    """One frame's header: its length in bytes, the version bits (3 is MPEG-1), the sample rate in Hz."""

    length: int
    version: int
    sample_rate: int


def sniff(head: bytes) -> Family:
    """The format family of a file that begins with `head` (its first `HEAD_BYTES`, or all of it).

    Raises UnsupportedAudio for everything else, saying what the content is where that can be told: playlists
    (ffconcat, HLS, DASH, SDP, image lists), texts, images, archives, and sound formats that are not accepted.
    """
    if not head:
        raise _refusal("the file is empty (0 bytes)")
    _refuse_text_and_lists(head)
    for offset, magic, name in FOREIGN:
        if head[offset : offset + len(magic)] == magic:
            raise _refusal(f"the content is {name}")
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        if head[8:12] == b"WAVE":
            return FAMILIES["wav"]
        raise _refusal(f"the content is a RIFF file of kind {_printable(head[8:12])}, not WAVE")
    if head[4:8] == b"ftyp":
        return _mp4_family(head)
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"):
        return FAMILIES["mov"]
    if head[:4] == b"OggS":
        return _ogg_family(head)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _ebml_family(head)
    if head[:4] == b"fLaC":
        return FAMILIES["flac"]
    if head[:3] == b"ID3" and len(head) > 10:
        start = id3_length(head)
        if head[start : start + 4] == b"fLaC":
            return FAMILIES["flac"]
        if start >= len(head) or find_mp3_frame(head[start:]) is not None:
            return FAMILIES["mp3"]
        raise _refusal("an ID3 tag is there, but no mp3 frames follow it")
    if find_mp3_frame(head) is not None:
        return FAMILIES["mp3"]
    if len(head) > 2 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:
        raise _refusal("the content looks like a bare AAC stream (ADTS)")
    raise _refusal("the content is none of the accepted formats")


def sniff_file(path: Path) -> Family:
    """`sniff` for a file on disk. Looks behind an ID3 tag of any size, which a head alone cannot."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
        family = sniff(head)
        if head[:3] == b"ID3" and id3_length(head) >= len(head):
            file.seek(id3_length(head))
            behind = file.read(HEAD_BYTES)
            if behind[:4] == b"fLaC":
                return FAMILIES["flac"]
            if find_mp3_frame(behind) is None:
                raise _refusal("an ID3 tag is there, but no mp3 frames follow it")
    return family


def id3_length(head: bytes) -> int:
    """Bytes that ID3v2 tags take at the start of `head` (several may follow each other); 0 without one."""
    start = 0
    while head[start : start + 3] == b"ID3" and len(head) >= start + 10:
        size = 0
        for byte in head[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        footer = 10 if head[start + 5] & 0x10 else 0
        start += 10 + size + footer
    return start


def find_mp3_frame(data: bytes) -> int | None:
    """Offset of the first MPEG layer III frame that is followed by more of its kind, or None.

    A sync word alone appears in any data every few kilobytes; three frames in a row of one version and sample rate do
    not. At the end of a short file two, or the file's exact end, are enough.
    """
    for start in range(min(len(data), JUNK_BYTES)):
        if data[start] == 0xFF and _is_frame_chain(data, start):
            return start
    return None


def _is_frame_chain(data: bytes, start: int, needed: int = 3) -> bool:
    first = mp3_frame(data, start)
    if first is None:
        return False
    at, found = start, 0
    while found < needed:
        frame = mp3_frame(data, at)
        if frame is None or frame[1:] != first[1:]:
            # the file may end inside a frame, or in a 128-byte ID3v1 tag
            return found >= 2 and (len(data) - at < 4 or data[at : at + 3] == b"TAG")
        found += 1
        at += frame[0]
        if at >= len(data):
            return found >= 2 or (found == 1 and at == len(data))
    return True


def mp3_frame(data: bytes, at: int) -> Mp3Frame | None:
    """The layer III frame whose header is at `at`, or None."""
    if at + 4 > len(data) or data[at] != 0xFF or data[at + 1] & 0xE0 != 0xE0:
        return None
    version, layer = data[at + 1] >> 3 & 3, data[at + 1] >> 1 & 3
    rate_index, bits_index = data[at + 2] >> 2 & 3, data[at + 2] >> 4
    if version == 1 or layer != 1 or rate_index == 3 or bits_index in (0, 15) or data[at + 3] & 3 == 2:
        return None
    rate = _MP3_RATES[version][rate_index]
    kbps = (_MP3_KBPS_V1 if version == 3 else _MP3_KBPS_V2)[bits_index]
    per_frame = 144 if version == 3 else 72
    return Mp3Frame(per_frame * kbps * 1000 // rate + (data[at + 2] >> 1 & 1), version, rate)


def _mp4_family(head: bytes) -> Family:
    brand = head[8:12]
    if brand in (b"M4A ", b"M4B ", b"M4P "):
        return FAMILIES["m4a"]
    if brand == b"qt  ":
        return FAMILIES["mov"]
    if brand in (b"avif", b"avis", b"heic", b"heix", b"mif1", b"msf1", b"jp2 ", b"crx "):
        raise _refusal("the content is an image")
    return FAMILIES["mp4"]


def _ogg_family(head: bytes) -> Family:
    segments = head[26] if len(head) > 26 else 0
    packet = head[27 + segments :]
    if packet[:8] == b"OpusHead":
        return FAMILIES["opus"]
    if packet[:7] == b"\x01vorbis" or packet[:5] == b"\x7fFLAC" or packet[:8] == b"Speex   ":
        return FAMILIES["ogg"]
    # a video track may come first; the demuxer finds the sound behind it
    if any(mark in head[:8192] for mark in (b"OpusHead", b"\x01vorbis", b"\x7fFLAC")):
        return FAMILIES["ogg"]
    raise _refusal("the Ogg file holds none of Vorbis, Opus, FLAC or Speex")


def _ebml_family(head: bytes) -> Family:
    if b"webm" in head[:64]:
        return FAMILIES["webm"]
    if b"matroska" in head[:64]:
        return FAMILIES["mkv"]
    raise _refusal("the EBML file is neither WebM nor Matroska")


def _refuse_text_and_lists(head: bytes) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") and head[2:12].count(0) >= 4:
        raise _refusal("the content is a text (UTF-16)")
    for pattern, name in _PLAYLISTS:
        # image names contain no control characters; binary data that happens to hold ".gif" is not a list
        match = pattern.match(text[:4096])
        if match and not re.search(rb"[\x00-\x08\x0e-\x1f]", match.group()):
            raise _refusal(f"the content is {name}; only a file that holds its own sound can be sent")
    sample = head[:2048]
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]", sample):
        try:
            sample.decode("utf-8")
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 4:
                return
        raise _refusal("the content is a text")


def _printable(data: bytes) -> str:
    return repr(data.decode("ascii", "replace").strip())


def _refusal(what: str) -> UnsupportedAudio:
    return UnsupportedAudio(f"{what[0].upper()}{what[1:]}. Accepted are {ACCEPTED}.", field="file")
