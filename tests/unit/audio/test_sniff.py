"""Is the format decided by content, and is everything else refused with its name?"""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.audio.sniff import HEAD_BYTES, sniff, sniff_file
from libs.common.errors import UnsupportedAudio
from tests.factories_audio import FORMATS, Format, encode_as, make_tone, tone


@pytest.mark.parametrize("format", FORMATS)
def test_each_accepted_format_is_recognised_under_a_false_name(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, tone(1.0), 22_050, tmp_path / "picture.png")

    family = sniff_file(path)

    assert family.name == format


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "empty"),
        (b"ffconcat version 1.0\nfile secret.wav\n", "ffconcat"),
        (b"\xef\xbb\xbfffconcat version 1.0\nfile secret.wav\n", "ffconcat"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n", "playlist"),
        (b'<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>', "DASH"),
        (b"<MPD></MPD>", "DASH"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nm=audio 5004 RTP/AVP 0\r\n", "SDP"),
        (b"image-001.png\nimage-002.png\n", "list of images"),
        (b"file 'frame%03d.jpg'\n", "list of images"),
        (b"[playlist]\nFile1=http://example.org/a.mp3\n", "PLS"),
        (b"<html><body>404</body></html>", "XML or HTML"),
        (b"Dear Sir or Madam,\n", "text"),
        ("Grüße aus der Küche".encode(), "text"),
        ("hello hello".encode("utf-16"), "UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "PNG"),
        (b"PK\x03\x04\0\0\0\0", "ZIP"),
        (b"MThd\0\0\0\6\0\1", "MIDI"),
        (b"FORM\0\0\1\0AIFFCOMM\0", "AIFF"),
        (b"RIFF\0\0\1\0AVI LIST\0", "not WAVE"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "image"),
        (b"ID3\4\0\0\0\0\0\0no frames follow here\0\1\2", "ID3"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc\x00\x01\x02", "AAC"),
        (b"OggS\0\2" + bytes(20) + b"\1\x2a\x80theora" + bytes(40), "Vorbis"),
    ],
)
def test_what_is_no_accepted_sound_is_refused_by_name(head: bytes, said: str) -> None:
    with pytest.raises(UnsupportedAudio) as refused:
        sniff(head)

    assert said in refused.value.detail
    assert "Accepted are" in refused.value.detail


def test_a_list_of_files_with_mp3_frames_behind_it_is_still_a_list(tmp_path: Path) -> None:
    frames = make_tone(1.0, tmp_path / "tone.mp3").read_bytes()

    with pytest.raises(UnsupportedAudio, match="ffconcat"):
        sniff(b"ffconcat version 1.0\nfile secret.wav\n" + frames)


def test_one_sync_word_does_not_make_an_mp3() -> None:
    header = b"\xff\xfb\x90\x00"

    with pytest.raises(UnsupportedAudio):
        sniff(header + bytes(range(256)) * 20)


def test_an_mp3_behind_a_tag_larger_than_the_head_is_found(tmp_path: Path) -> None:
    frames = make_tone(1.0, tmp_path / "tone.mp3", hz=300).read_bytes()
    size = HEAD_BYTES * 3
    tag = b"ID3\4\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + bytes(size)
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(tag + frames)
    bad.write_bytes(tag + b"\1\2\3 no frames" * 100)

    assert sniff_file(good).name == "mp3"
    with pytest.raises(UnsupportedAudio, match="ID3"):
        sniff_file(bad)


def test_a_flac_behind_an_id3_tag_is_a_flac(tmp_path: Path) -> None:
    flac = make_tone(0.5, tmp_path / "tone.flac").read_bytes()

    assert sniff(b"ID3\4\0\0\0\0\0\x04abcd" + flac).name == "flac"


@given(st.binary(max_size=4096))
def test_any_bytes_are_either_a_family_or_refused(data: bytes) -> None:
    with contextlib.suppress(UnsupportedAudio):
        assert sniff(data).name in FORMATS
