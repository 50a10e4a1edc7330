"""Does an upload become a training WAV in one pass, in bounded memory, whole or not at all?"""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from libs.audio.report import Limits
from libs.audio.resample import resample
from libs.audio.transcode import inspect, transcode
from libs.common.errors import PlatformError, RecordingTooLong, RecordingTooShort, SilentRecording, UnsupportedAudio
from tests.factories_audio import FORMATS, Format, encode_as, make_speech, make_tone, speech, tone


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_becomes_mono_pcm16_at_22050(format: Format, tmp_path: Path) -> None:
    source = encode_as(format, np.stack([speech(3.0, rate=48_000)] * 2), 48_000, tmp_path / "in")

    report = transcode(source, tmp_path / "out.wav")

    info = soundfile.info(tmp_path / "out.wav")
    assert (info.format, info.subtype, info.samplerate, info.channels) == ("WAV", "PCM_16", 22_050, 1)
    assert info.frames == pytest.approx(report.duration_seconds * 22_050, abs=1)
    assert (report.sample_rate, report.channels) == (48_000, 2)


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
def test_nothing_that_a_file_says_about_its_speaker_is_in_what_is_trained_from(extension: str, tmp_path: Path) -> None:
    source = tmp_path / f"in.{extension}"
    with soundfile.SoundFile(source, "w", samplerate=22_050, channels=1) as file:
        file.artist, file.comment = "Anna Beispiel", "recorded at 5 Example Street"
        file.write(speech(2.0))

    transcode(source, tmp_path / "out.wav")

    told, kept = source.read_bytes(), (tmp_path / "out.wav").read_bytes()
    assert b"Anna Beispiel" in told
    assert b"Example Street" in told
    assert b"Anna" not in kept
    assert b"Example Street" not in kept


def test_blocks_and_whole_give_the_same_wave(tmp_path: Path) -> None:
    wave = speech(7.0, rate=44_100)
    source = encode_as("flac", wave, 44_100, tmp_path / "in.flac")

    transcode(source, tmp_path / "out.wav")

    out, _rate = soundfile.read(tmp_path / "out.wav", dtype="float32")
    np.testing.assert_allclose(out, np.clip(resample(wave, 44_100, 22_050), -1, 1), atol=2e-4)


def test_the_report_is_the_same_with_and_without_a_target(tmp_path: Path) -> None:
    source = make_speech(4.0, "en-gb", tmp_path / "in.mp3")

    assert transcode(source, tmp_path / "out.wav") == inspect(source)


@pytest.mark.parametrize(
    ("wave", "limits", "error"),
    [
        (tone(0.2), Limits(), RecordingTooShort),
        (np.zeros(44_100, np.float32), Limits(), SilentRecording),
        (tone(3.0), Limits(max_seconds=2.0), RecordingTooLong),
    ],
)
def test_a_refused_recording_leaves_no_file(
    wave: np.ndarray, limits: Limits, error: type[PlatformError], tmp_path: Path
) -> None:
    source = encode_as("wav", wave, 22_050, tmp_path / "in.wav")
    folder = tmp_path / "wavs"
    folder.mkdir()

    with pytest.raises(error):
        transcode(source, folder / "out.wav", limits=limits)

    assert list(folder.iterdir()) == []


def test_a_text_named_mp3_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "letter.mp3"
    source.write_text("Dear Sir or Madam,\n")

    with pytest.raises(UnsupportedAudio, match="text"):
        transcode(source, tmp_path / "out.wav")

    assert list(tmp_path.iterdir()) == [source]


def test_memory_does_not_grow_with_the_recording(tmp_path: Path) -> None:
    short = make_tone(20.0, tmp_path / "short.flac", rate=44_100)
    long = make_tone(200.0, tmp_path / "long.flac", rate=44_100)
    transcode(short, tmp_path / "warm.wav")

    peaks = []
    for source in (short, long):
        tracemalloc.start()
        transcode(source, tmp_path / "out.wav")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    # 180 s more of samples alone would be 31 MB
    assert peaks[1] - peaks[0] < 1_000_000
    assert peaks[1] < 20_000_000
