"""Do arrays become whole files, or none at all?"""

from __future__ import annotations

import io
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.audio.decode import decode
from libs.audio.encode import ENCODINGS, OutputFormat, WavWriter, atomic_file, encode, write_encoded, write_wav
from libs.audio.sniff import sniff
from libs.common.errors import BrokenAudio, InvalidInput
from tests.factories_audio import speech, tone

FORMATS = get_args(OutputFormat)


@pytest.mark.parametrize("rate", [16_000, 22_050, 40_000, 48_000])
@pytest.mark.parametrize("format", FORMATS)
def test_each_format_and_rate_of_a_voice_comes_back_as_it_was(format: OutputFormat, rate: int, tmp_path: Path) -> None:
    wave = tone(1.0, 440.0, rate=rate, level=0.5)

    data = encode(wave, rate, format)

    path = tmp_path / "out"
    path.write_bytes(data)
    sound = decode(path)
    assert sniff(data).name == format
    assert sound.seconds == pytest.approx(1.0, abs=0.06)
    assert float(np.abs(sound.wave[4_000:-4_000]).max()) == pytest.approx(0.5, abs=0.03)
    assert set(ENCODINGS) == set(FORMATS)


@settings(deadline=None, max_examples=30)
@given(values=st.lists(st.integers(-32_768, 32_767), min_size=1, max_size=500))
def test_sixteen_bit_samples_survive_a_wav_exactly(values: list[int]) -> None:
    wave = np.array(values, dtype=np.float32) / np.float32(32_768)

    back, rate = soundfile.read(io.BytesIO(encode(wave, 22_050, "wav")), dtype="int16")

    assert rate == 22_050
    assert back.tolist() == values


def test_a_float_wav_keeps_every_value(tmp_path: Path) -> None:
    wave = np.array([0.0, 1e-7, -1.5, 3.0], dtype=np.float32)

    write_wav(tmp_path / "float.wav", wave, 48_000, "FLOAT")

    back, _rate = soundfile.read(tmp_path / "float.wav", dtype="float32")
    np.testing.assert_array_equal(back, wave)


@pytest.mark.parametrize("format", FORMATS)
def test_stereo_stays_stereo(format: OutputFormat) -> None:
    wave = np.stack([tone(0.5, 300.0), np.zeros(11_025, np.float32)])

    back, _rate = soundfile.read(io.BytesIO(encode(wave, 22_050, format)), dtype="float32", always_2d=True)

    assert back.shape[1] == 2
    assert float(np.abs(back[3_000:-3_000, 1]).max()) < 0.02


@pytest.mark.parametrize("format", FORMATS)
def test_beyond_full_scale_is_clipped_and_never_wrapped(format: OutputFormat, tmp_path: Path) -> None:
    wave = tone(0.5, 100.0, level=2.0)

    (tmp_path / "out").write_bytes(encode(wave, 22_050, format))

    back = decode(tmp_path / "out").wave[: len(wave)]
    loud = np.abs(wave[: len(back)]) > 1.5
    assert (np.sign(back[loud]) == np.sign(wave[: len(back)][loud])).all()


def test_a_wave_beyond_full_scale_can_be_scaled_down_instead() -> None:
    wave = tone(0.5, 100.0, level=2.0)

    back, _rate = soundfile.read(io.BytesIO(encode(wave, 22_050, "wav", overshoot="scale")), dtype="float32")

    np.testing.assert_allclose(back, wave / np.abs(wave).max(), atol=1 / 32768)


@pytest.mark.parametrize("format", FORMATS)
def test_samples_that_are_no_numbers_are_not_written(format: OutputFormat) -> None:
    wave = tone(0.1)
    wave[5] = np.nan

    with pytest.raises(BrokenAudio, match="NaN"):
        encode(wave, 22_050, format)


def test_minutes_of_vorbis_do_not_overflow_the_encoders_stack() -> None:
    wave = np.tile(speech(10.0), 30)

    data = encode(wave, 22_050, "ogg")

    assert soundfile.info(io.BytesIO(data)).duration == pytest.approx(300.0, abs=0.1)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "out.wav"
    write_wav(path, tone(0.1), 22_050)
    before = path.read_bytes()

    with pytest.raises(RuntimeError, match="power cut"):
        write_half_of(path)

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def write_half_of(path: Path) -> None:
    with atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("power cut")


def test_encoded_files_replace_older_ones(tmp_path: Path) -> None:
    path = tmp_path / "out.flac"
    path.write_bytes(b"old")

    write_encoded(path, tone(0.2), 22_050, "flac")

    assert soundfile.info(path).frames == 4_410


def test_a_full_disk_is_storage_full_and_leaves_nothing(tmp_path: Path) -> None:
    """A file size limit of the process stands for the disk; it needs no rights."""
    program = textwrap.dedent(f"""
        import resource
        from pathlib import Path
        import numpy as np
        from libs.audio.encode import write_wav
        from libs.common.errors import StorageFull
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        try:
            write_wav(Path({str(tmp_path / "big.wav")!r}), np.zeros(200_000, np.float32), 22_050)
        except StorageFull as full:
            print("full:", full.detail)
    """)

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=Path.cwd())

    assert "full: There is no space left to write big.wav" in done.stdout, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wav_written_in_blocks_has_true_lengths_in_its_header() -> None:
    buffer = io.BytesIO()

    with WavWriter(buffer, 16_000) as writer:
        for _ in range(3):
            writer.write(np.zeros(1_001, np.float32))

    data = buffer.getvalue()
    assert soundfile.info(io.BytesIO(data)).frames == 3_003
    assert int.from_bytes(data[4:8], "little") == len(data) - 8


def test_a_wav_that_would_pass_four_gigabytes_is_the_requests_fault_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.audio.encode._WAV_LIMIT", 1000)

    with pytest.raises(InvalidInput, match="flac") as told:
        write_wav(tmp_path / "long.wav", np.zeros(501, np.float32), 16_000)

    assert (told.value.field, told.value.retryable) == ("format", False)
    assert list(tmp_path.iterdir()) == []
    write_wav(tmp_path / "short.wav", np.zeros(500, np.float32), 16_000)
