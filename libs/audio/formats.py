"""Which formats do we take, and which parts of FFmpeg may touch each of them?"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """One accepted kind of sound file.

    `demuxer` is the FFmpeg name that is forced when opening, `demuxers` the whole name that FFmpeg's `format_whitelist`
    is compared with, and `codecs` the only decoders that may be opened for it.
    """

    name: str
    mime: str
    extension: str
    demuxer: str
    demuxers: tuple[str, ...]
    codecs: frozenset[str]
    states_length: bool = True
    """False where FFmpeg's length is a guess from the file's size (wav, mp3); `headers.py` reads those itself."""


_PCM = frozenset(
    f"pcm_{kind}"
    for kind in (
        *("u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "s64le"),
        *("f32le", "f32be", "f64le", "f64be", "alaw", "mulaw"),
    )
)
_MOV_DEMUXERS = ("mov", "mp4", "m4a", "3gp", "3g2", "mj2")
_MOV_CODECS = _PCM | {"aac", "alac", "mp3float", "mp3", "ac3", "eac3", "opus", "libopus", "flac"}
_MOV_CODECS |= {"amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "adpcm_ima_qt", "pcm_s16le_planar"}
_MKV_CODECS = _PCM | {"opus", "libopus", "vorbis", "libvorbis", "aac", "mp3float", "mp3", "flac", "ac3", "eac3", "alac"}
_OGG_CODECS = frozenset({"vorbis", "libvorbis", "opus", "libopus", "flac", "speex", "libspeex"})

FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        Family(
            *("wav", "audio/wav", ".wav", "wav", ("wav",)),
            _PCM | {"adpcm_ms", "adpcm_ima_wav", "gsm_ms", "mp3float", "mp3"},
            states_length=False,
        ),
        Family("mp3", "audio/mpeg", ".mp3", "mp3", ("mp3",), frozenset({"mp3float", "mp3"}), states_length=False),
        Family("m4a", "audio/mp4", ".m4a", "mov", _MOV_DEMUXERS, _MOV_CODECS),
        Family("mp4", "video/mp4", ".mp4", "mov", _MOV_DEMUXERS, _MOV_CODECS),
        Family("mov", "video/quicktime", ".mov", "mov", _MOV_DEMUXERS, _MOV_CODECS),
        Family("ogg", "audio/ogg", ".ogg", "ogg", ("ogg",), _OGG_CODECS),
        Family("opus", "audio/ogg; codecs=opus", ".opus", "ogg", ("ogg",), _OGG_CODECS),
        Family("webm", "audio/webm", ".webm", "matroska", ("matroska", "webm"), _MKV_CODECS),
        Family("mkv", "audio/x-matroska", ".mka", "matroska", ("matroska", "webm"), _MKV_CODECS),
        Family("flac", "audio/flac", ".flac", "flac", ("flac",), frozenset({"flac"})),
    )
}

FOREIGN: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\x89PNG", "a PNG image"),
    (0, b"\xff\xd8\xff", "a JPEG image"),
    (0, b"GIF8", "a GIF image"),
    (0, b"BM", "a BMP image"),
    (8, b"WEBP", "a WebP image"),
    (0, b"%PDF", "a PDF document"),
    (0, b"PK\x03\x04", "a ZIP archive"),
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a RAR archive"),
    (0, b"\x7fELF", "a program"),
    (0, b"MZ", "a program"),
    (0, b"MThd", "a MIDI file, which holds notes and no sound"),
    (0, b"FORM", "an AIFF or IFF file, which is not accepted"),
    (0, b"caff", "a CAF file, which is not accepted"),
    (0, b"#!AMR", "a bare AMR file, which is not accepted"),
    (0, b"0&\xb2u\x8ef\xcf\x11", "a WMA or WMV file, which is not accepted"),
    (0, b"FLV", "an FLV file, which is not accepted"),
    (0, b".snd", "an AU file, which is not accepted"),
    (0, b"riff\x2e\x91\xcf\x11", "a Wave64 file, which is not accepted"),
    (0, b"wvpk", "a WavPack file, which is not accepted"),
    (0, b"MAC ", "a Monkey's Audio file, which is not accepted"),
)
