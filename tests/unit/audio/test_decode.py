"""Do files of every accepted format become the right samples, counted and not believed?"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from libs.audio.decode import Block, Recording, Sound, Wave, decode, frames
from libs.common.errors import BrokenAudio, RecordingTooLong, UnsupportedAudio
from tests.factories_audio import FORMATS, Format, encode_as, make_tone, speech, tone, write_float_wav

LOSSLESS = ("wav", "flac", "mkv")


def loudest_hz(wave: Wave, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum) * rate / len(wave))


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_decodes_to_what_went_in(format: Format, tmp_path: Path) -> None:
    wave = tone(2.0, 440.0, level=0.5)
    path = encode_as(format, wave, 22_050, tmp_path / "tone")

    sound = decode(path)

    assert sound.wave.dtype == np.float32
    assert sound.wave.ndim == 1
    assert sound.seconds == pytest.approx(2.0, abs=0.05)
    assert loudest_hz(sound.wave, sound.sample_rate) == pytest.approx(440.0, abs=1.0)
    assert float(np.abs(sound.wave[2000:-2000]).max()) == pytest.approx(0.5, abs=0.05)
    assert not sound.truncated
    if format in LOSSLESS:
        np.testing.assert_allclose(sound.wave, wave, atol=1.1 / 32768)


@pytest.mark.parametrize("format", ["wav", "mp3", "ogg", "opus", "webm", "mkv", "flac"])
def test_a_file_without_a_length_in_its_header_is_counted(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, tone(2.0), 22_050, tmp_path / "piped", header=False)

    sound = decode(path)

    assert sound.seconds == pytest.approx(2.0, abs=0.1)
    assert not sound.truncated


@pytest.mark.parametrize("format", ["mp4", "mov", "mkv"])
def test_of_a_film_the_sound_is_taken(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, tone(1.0, 330.0), 22_050, tmp_path / "film", video=True)

    sound = decode(path)

    assert loudest_hz(sound.wave, sound.sample_rate) == pytest.approx(330.0, abs=2.0)


@pytest.mark.parametrize("format", ["mp3", "m4a"])
def test_an_embedded_cover_is_ignored(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, tone(1.0, 330.0), 22_050, tmp_path / "song", cover=True)

    sound = decode(path)

    assert sound.seconds == pytest.approx(1.0, abs=0.05)


def test_a_film_without_sound_is_refused(tmp_path: Path) -> None:
    import av

    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=5)
        assert isinstance(stream, av.VideoStream)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for _ in range(3):
            output.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        output.mux(stream.encode(None))

    with pytest.raises(UnsupportedAudio, match="no audio track"):
        decode(path)


def claim_ten_hours_wav(data: bytearray) -> None:
    at = data.find(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", 36_000 * 22_050 * 2)


def claim_ten_hours_flac(data: bytearray) -> None:
    # the low 36 bits of the 8 bytes at 18 of STREAMINFO's block are the total samples
    at = 4 + 4 + 10
    field = int.from_bytes(data[at : at + 8], "big") >> 36 << 36 | 36_000 * 22_050
    data[at : at + 8] = field.to_bytes(8, "big")


def claim_ten_hours_mp3(data: bytearray) -> None:
    at = max(data.find(b"Xing"), data.find(b"Info"))
    data[at + 8 : at + 12] = struct.pack(">I", 36_000 * 22_050 // 576)


def claim_ten_hours_mp4(data: bytearray) -> None:
    for box in (b"mvhd", b"mdhd"):
        at = data.find(box)
        scale = struct.unpack(">I", data[at + 16 : at + 20])[0]
        data[at + 20 : at + 24] = struct.pack(">I", 36_000 * scale)


@pytest.mark.parametrize(
    ("format", "lie"),
    [
        ("wav", claim_ten_hours_wav),
        ("flac", claim_ten_hours_flac),
        ("mp3", claim_ten_hours_mp3),
        ("m4a", claim_ten_hours_mp4),
    ],
)
def test_a_header_that_claims_ten_hours_on_one_second_is_not_believed(
    format: Format, lie: Callable[[bytearray], None], tmp_path: Path
) -> None:
    path = encode_as(format, tone(1.0), 22_050, tmp_path / "liar")
    data = bytearray(path.read_bytes())
    lie(data)
    path.write_bytes(data)

    with Recording(path, limit_seconds=60.0) as recording:
        samples = sum(block.shape[1] for block in recording.blocks())

    assert samples / recording.sample_rate == pytest.approx(1.0, abs=0.1)
    if format != "m4a":  # FFmpeg itself counts the samples of an mp4's index, which was left true
        assert recording.claimed_seconds == pytest.approx(36_000, rel=0.01)
        assert recording.truncated


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_a_streamed_wav_without_its_size_decodes_whole_and_unwarned(size: int, tmp_path: Path) -> None:
    path = make_tone(1.5, tmp_path / "streamed.wav")
    data = bytearray(path.read_bytes())
    at = data.find(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", size)
    path.write_bytes(data)

    sound = decode(path)

    assert sound.seconds == pytest.approx(1.5, abs=0.001)
    assert not sound.truncated


@pytest.mark.parametrize("format", ["wav", "mp3", "flac", "ogg", "opus", "webm"])
def test_a_truncated_file_gives_what_is_there_and_says_so(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, speech(10.0), 22_050, tmp_path / "whole")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6) | 1])

    sound = decode(path)

    assert 3.0 < sound.seconds < 8.0
    assert sound.truncated


def test_an_m4a_that_ends_early_is_called_incomplete(tmp_path: Path) -> None:
    path = encode_as("m4a", speech(5.0), 22_050, tmp_path / "half.m4a")
    path.write_bytes(path.read_bytes()[:20_000])

    with pytest.raises(BrokenAudio, match="incomplete"):
        decode(path)


def test_damage_in_the_middle_costs_only_the_damaged_part(tmp_path: Path) -> None:
    path = encode_as("mp3", speech(10.0), 22_050, tmp_path / "scratched.mp3")
    data = bytearray(path.read_bytes())
    data[60_000:63_000] = np.random.default_rng(1).bytes(3_000)
    path.write_bytes(data)

    sound = decode(path)

    assert sound.seconds == pytest.approx(10.0, abs=1.0)


def test_decoding_stops_at_the_limit(tmp_path: Path) -> None:
    path = make_tone(30.0, tmp_path / "long.flac")
    blocks: list[Block] = []

    with pytest.raises(RecordingTooLong) as refused:
        blocks.extend(frames(path, limit_seconds=10.0))

    assert 5.0 < sum(block.samples.shape[1] / block.sample_rate for block in blocks) <= 10.0
    assert "10 s" in refused.value.detail
    assert refused.value.status == 413


def test_exactly_the_limit_is_accepted(tmp_path: Path) -> None:
    path = make_tone(2.0, tmp_path / "exact.wav")

    assert decode(path, limit_seconds=2.0).seconds == 2.0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    wave = tone(1.0)
    wave[11_025] = value
    path = write_float_wav(tmp_path / "nan.wav", wave)

    with pytest.raises(BrokenAudio, match=r"NaN or infinite.* 0\.500 s"):
        decode(path)


def test_a_float_file_with_sixteen_bit_values_is_refused(tmp_path: Path) -> None:
    path = write_float_wav(tmp_path / "scale.wav", tone(1.0) * 32_768)

    with pytest.raises(BrokenAudio, match="wrong scale"):
        decode(path)


def test_a_float_file_a_little_beyond_full_scale_keeps_its_peaks(tmp_path: Path) -> None:
    path = write_float_wav(tmp_path / "hot.wav", tone(1.0, level=1.5))

    sound = decode(path)

    assert float(np.abs(sound.wave).max()) == pytest.approx(1.5, abs=1e-3)


def test_an_empty_file_is_refused_as_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp3"
    path.touch()

    with pytest.raises(UnsupportedAudio, match="empty"):
        decode(path)


@pytest.mark.parametrize("format", ["wav", "flac"])
def test_a_file_with_no_sample_in_it_is_broken(format: Format, tmp_path: Path) -> None:
    path = encode_as(format, tone(1.0), 22_050, tmp_path / "nothing")
    keep = {"wav": path.read_bytes().find(b"data") + 8, "flac": 4 + 4 + 34}[format]
    path.write_bytes(path.read_bytes()[:keep])

    with pytest.raises(BrokenAudio):
        decode(path)


def test_surround_at_96_khz_becomes_mono_that_cannot_clip(tmp_path: Path) -> None:
    loud = np.stack([tone(0.5, 200.0, rate=96_000, level=1.0)] * 6)
    centre = np.zeros_like(loud)
    centre[2] = loud[2]
    all_path = encode_as("wav", loud, 96_000, tmp_path / "all.wav")
    centre_path = encode_as("wav", centre, 96_000, tmp_path / "centre.wav")

    everything, only_centre = decode(all_path), decode(centre_path)
    channels = decode(all_path, mono=False)

    assert everything.sample_rate == 96_000
    assert float(np.abs(everything.wave).max()) == pytest.approx(1.0, abs=1e-3)
    assert float(np.abs(only_centre.wave).max()) == pytest.approx(1.0 / (1 + 2 * 0.7071 + 2 * 0.5), abs=1e-3)
    assert channels.wave.shape == (6, 48_000)


def test_the_subwoofer_is_left_out_of_the_mix(tmp_path: Path) -> None:
    low = np.zeros((6, 9_600), np.float32)
    low[3] = tone(0.1, 50.0, rate=96_000, level=1.0)
    path = encode_as("wav", low, 96_000, tmp_path / "lfe.wav")

    assert float(np.abs(decode(path).wave).max()) == 0.0


def test_stereo_becomes_its_mean(tmp_path: Path) -> None:
    left, right = tone(0.5, 300.0), np.zeros(11_025, np.float32)
    path = encode_as("wav", np.stack([left, right]), 22_050, tmp_path / "stereo.wav")

    np.testing.assert_allclose(decode(path).wave, left / 2, atol=1 / 32768)


def test_telephone_sound_of_8_khz_is_accepted(tmp_path: Path) -> None:
    path = encode_as("wav", tone(1.0, rate=8_000), 8_000, tmp_path / "phone.wav")

    sound = decode(path)

    assert (sound.sample_rate, len(sound.wave)) == (8_000, 8_000)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"])
def test_every_kind_of_wav_sample_has_the_same_scale(subtype: str, tmp_path: Path) -> None:
    import soundfile

    path = tmp_path / "kind.wav"
    soundfile.write(path, tone(0.5, level=0.5), 22_050, subtype=subtype)

    wave = decode(path).wave

    tolerance = {"PCM_U8": 0.01, "ULAW": 0.03, "ALAW": 0.03}.get(subtype, 1e-4)
    np.testing.assert_allclose(wave, tone(0.5, level=0.5), atol=tolerance)


@pytest.mark.parametrize("first", ["mono", "stereo"])
def test_a_change_of_rate_and_channels_in_the_middle_keeps_pitch_and_length(first: str, tmp_path: Path) -> None:
    mono = make_tone(2.0, tmp_path / "mono.mp3", hz=500.0, rate=22_050).read_bytes()
    stereo = make_tone(2.0, tmp_path / "stereo.mp3", hz=500.0, rate=44_100, channels=2).read_bytes()
    path = tmp_path / "joined.mp3"
    path.write_bytes(mono + stereo if first == "mono" else stereo + mono)

    sound = decode(path, mono=False)

    assert sound.sample_rate == (22_050 if first == "mono" else 44_100)
    assert sound.wave.shape[0] == (1 if first == "mono" else 2)
    assert sound.seconds == pytest.approx(4.0, abs=0.2)
    last_second = sound.wave[0, -sound.sample_rate :]
    assert loudest_hz(last_second, sound.sample_rate) == pytest.approx(500.0, abs=3.0)


def test_priming_samples_are_cut_as_ffmpeg_does(tmp_path: Path) -> None:
    wave = np.zeros(22_050, np.float32)
    wave[11_025] = 0.9
    path = encode_as("mp3", wave, 22_050, tmp_path / "click.mp3")

    sound = decode(path)

    assert len(sound.wave) == 22_050
    assert int(np.argmax(np.abs(sound.wave))) == pytest.approx(11_025, abs=2)


def test_files_decode_in_many_threads_without_a_word_on_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    good = encode_as("mp3", speech(5.0), 22_050, tmp_path / "good.mp3")
    bad = tmp_path / "bad.mp3"
    data = bytearray(good.read_bytes())
    data[10_000:40_000] = np.random.default_rng(2).bytes(30_000)
    bad.write_bytes(data)
    sounds: list[Sound] = []
    threads = [
        threading.Thread(target=lambda path=path: sounds.append(decode(path)), daemon=True) for path in [good, bad] * 6
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert not any(thread.is_alive() for thread in threads)
    assert len(sounds) == 12
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_is_the_callers_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode(tmp_path / "nowhere.wav")
