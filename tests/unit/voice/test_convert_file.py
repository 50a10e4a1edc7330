"""Is a file converted piece by piece the same as the whole in memory, whole or absent, and without a seam?"""

from __future__ import annotations

import errno
import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from libs.audio.decode import decode
from libs.audio.encode import WavWriter, write_wav
from libs.audio.write_stream import open_writer
from libs.common.errors import BrokenAudio, Cancelled, InvalidInput, RecordingTooShort, UnsupportedAudio
from libs.voice import chain
from libs.voice.conversion.source import ArraySource, SampleFile
from tests.unit.voice.conversion_parts import HELD_HZ, SHORT_WINDOWS, SineVoice, SteadyPitch, converter, speech


def recording(folder: Path, wave: np.ndarray, rate: int = 22050) -> Path:
    path = folder / "in.wav"
    write_wav(path, wave, rate, "FLOAT")
    return path


@pytest.mark.parametrize(
    "wanted",
    [
        chain.Conversion(),
        chain.Conversion(pitch_shift=5, rms_mix_rate=0.0, seed=3),
        chain.Conversion(split_silence=True, rms_mix_rate=1.0),
        chain.Conversion(formant_timbre=1.3, autotune=True),
    ],
    ids=["plain", "shifted", "split", "formants"],
)
@pytest.mark.parametrize("joining", ["reference", "smooth"])
def test_a_file_gives_what_its_samples_in_memory_give(
    tmp_path: Path, wanted: chain.Conversion, joining: chain.Joining
) -> None:
    wave = 1.4 * speech(34.0, 22050)
    ours = converter(SineVoice(noise=0.02), joining=joining)
    source = recording(tmp_path, wave)

    made = chain.convert_file(ours, source, tmp_path / "out.wav", wanted, output_rate=24000)
    expected, rate = ours.convert(decode(source).wave, 22050, wanted, output_rate=24000)

    found = decode(tmp_path / "out.wav")
    assert (made.sample_rate, found.sample_rate, rate) == (24000, 24000, 24000)
    assert len(found.wave) == len(expected)
    assert np.abs(found.wave - expected).max() < 1e-4
    assert made.seconds == pytest.approx(34.0, abs=0.2 if joining == "reference" else 1e-3)


def test_a_recording_beyond_full_scale_is_turned_down_and_not_cut(tmp_path: Path) -> None:
    wave = speech(4.0)
    wave *= np.float32(0.95 / np.abs(wave).max())
    made = []
    for scale in (1.0, 2.5):
        source = recording(tmp_path, np.float32(scale) * wave, 16000)
        chain.convert_file(converter(), source, tmp_path / "out.wav", chain.Conversion(rms_mix_rate=0.0))
        made.append(decode(tmp_path / "out.wav").wave)

    # its loudness follows the source's, and peaks that are cut would make that larger
    assert np.abs(made[0]).max() > 0.5
    assert np.abs(made[1] - made[0]).max() < 0.01


def test_a_result_too_long_for_a_wav_is_told_before_it_is_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    voice, source = SineVoice(), recording(tmp_path, speech(4.0), 16000)
    monkeypatch.setattr("libs.audio.encode._WAV_LIMIT", 200_000)

    with pytest.raises(InvalidInput, match="flac") as told:
        chain.convert_file(converter(voice), source, tmp_path / "out.wav", chain.Conversion())
    assert (told.value.field, told.value.retryable, voice.frames) == ("format", False, [])
    assert [path.name for path in tmp_path.iterdir()] == ["in.wav"]

    chain.convert_file(converter(voice), source, tmp_path / "out.flac", chain.Conversion(), output_format="flac")
    chain.convert_file(converter(voice), source, tmp_path / "low.wav", chain.Conversion(), output_rate=16000)
    assert decode(tmp_path / "low.wav").seconds == pytest.approx(4.0, abs=0.1)


def test_pitch_in_windows_is_the_pitch_of_the_whole() -> None:
    wave = speech(50.0)
    sung = []
    for seconds in (100.0, 7.0):
        voice = SineVoice()
        converter(voice, windows=chain.Windows(0.5, 1.0, 4.0, 5.0, pitch=seconds)).convert(wave, 16000)
        sung.append(np.concatenate(voice.f0))

    before, after = sung
    both = (before > 0) & (after > 0)
    assert np.mean((before > 0) == (after > 0)) > 0.995
    assert np.percentile(np.abs(12 * np.log2(after[both] / before[both])), 99) < 0.1


def test_smooth_joining_keeps_the_time_and_reference_joining_loses_some_of_every_second_chunk() -> None:
    wave = speech(60.0)[: 60 * 16000 - 77]
    exact, lossy = (
        len(converter(joining=joining).convert(wave, 16000)[0]) / 32000 for joining in ("smooth", "reference")
    )

    assert exact == pytest.approx(60 - 77 / 16000, abs=1 / 32000)
    assert 0.02 < 60 - lossy < 0.3


def test_a_held_tone_has_no_seam() -> None:
    time = np.arange(20 * 16000) / 16000
    tone = (0.2 * np.sin(2 * np.pi * 220 * time)).astype(np.float32)

    def steps(joining: str) -> np.ndarray:
        wave, _ = converter(pitch=SteadyPitch(), joining=joining).convert(tone, 16000, rms_mix_rate=1.0)
        return np.abs(np.diff(wave, 2)[3200:-3200])

    inside = np.median(steps("smooth"))
    assert steps("smooth").max() < 2.5 * inside
    assert steps("reference").max() > 10 * inside  # the test can see a seam


def test_leaving_silence_out_keeps_time_and_renders_less() -> None:
    wave = np.concatenate([np.zeros(16000), speech(2.5), np.zeros(48000), speech(2.5), np.zeros(40000)])
    ours, plain = SineVoice(), SineVoice()

    split, _ = converter(ours).convert(wave, 16000, split_silence=True, rms_mix_rate=1.0)
    whole, _ = converter(plain).convert(wave, 16000, rms_mix_rate=1.0)

    assert len(split) == len(whole) == 2 * len(wave)
    assert sum(ours.frames) < 0.9 * sum(plain.frames)
    assert not split[2 * 62000 : 2 * 80000].any()
    assert np.abs(split[2 * 20000 : 2 * 50000]).max() > 0.2


def test_stretches_that_sound_are_found_to_an_eighth_of_a_second() -> None:
    wave = np.zeros(160000)
    wave[32000:64000] = wave[96000:112000] = 0.3

    stretches = chain.voiced_stretches(ArraySource(wave))

    assert len(stretches) == 2
    for (start, end), (first, last) in zip(stretches, [(32000, 64000), (96000, 112000)], strict=True):
        assert first - 4000 <= start <= first
        assert last <= end <= last + 4000
        assert start % 160 == end % 160 == 0
    assert chain.voiced_stretches(ArraySource(np.zeros(16000))) == [(0, 16000)]


@pytest.mark.parametrize("form", ["wav", "flac", "mp3", "ogg"])
def test_every_format_is_written_at_the_rate_that_was_asked_for(tmp_path: Path, form: str) -> None:
    source = recording(tmp_path, speech(3.0, 22050))
    target = tmp_path / f"out.{form}"

    made = chain.convert_file(
        converter(pitch=SteadyPitch()),
        source,
        target,
        chain.Conversion(),
        output_format=form,  # type: ignore[arg-type]
        output_rate=44100,
    )

    found = decode(target)
    assert made.sample_rate == found.sample_rate == 44100
    assert found.seconds == pytest.approx(3.0, abs=0.06)
    assert 0.01 < np.abs(found.wave).max() < 1.0
    # really resampled: the pitch is where it was
    strongest = np.argmax(np.abs(np.fft.rfft(found.wave))) * 44100 / len(found.wave)
    assert strongest == pytest.approx(HELD_HZ, abs=1.0)


def test_progress_rises_to_one_and_a_stop_leaves_nothing(tmp_path: Path) -> None:
    source, target = recording(tmp_path, speech(20.0)), tmp_path / "out.wav"
    shares: list[float] = []

    chain.convert_file(converter(), source, tmp_path / "whole.wav", chain.Conversion(), on_progress=shares.append)
    with pytest.raises(Cancelled):
        chain.convert_file(
            converter(),
            source,
            target,
            chain.Conversion(),
            on_progress=shares.append,
            should_stop=lambda: len(shares) > 8,
        )

    assert len(shares) > 6
    whole = shares[: shares.index(1.0) + 1]
    assert whole == sorted(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "whole.wav"]


def test_a_full_disk_is_told_in_every_format() -> None:
    class Full(io.BytesIO):
        def write(self, data: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    for form in ("wav", "flac", "mp3", "ogg"):
        with pytest.raises(OSError, match="No space left"), open_writer(Full(), 32000, form) as writer:  # type: ignore[arg-type]
            writer.write(speech(3.0, 32000))


def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    target = tmp_path / "out.wav"
    text = tmp_path / "text.wav"
    text.write_bytes(b"not a sound at all")

    def convert(source: Path, **more: int) -> None:
        chain.convert_file(converter(), source, target, chain.Conversion(), **more)  # type: ignore[arg-type]

    short = recording(tmp_path, speech(0.05))
    with pytest.raises(RecordingTooShort, match=r"0\.1 s needed"):
        convert(short)
    with pytest.raises((UnsupportedAudio, BrokenAudio)):
        convert(text)
    with pytest.raises(InvalidInput, match="8000…192000") as refusal:
        convert(short, output_rate=4000)
    assert refusal.value.field == "output_rate"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.wav", "text.wav"]


def test_the_windows_of_these_tests_cut(tmp_path: Path) -> None:
    assert len(chain.cut_points(speech(20.0), SHORT_WINDOWS)) == 4


IN_A_CHILD = """
import resource, sys
from pathlib import Path
from libs.voice import chain
from tests.unit.voice.conversion_parts import SteadyPitch, converter

made = chain.convert_file(
    converter(pitch=SteadyPitch(), windows=chain.Windows()), Path(sys.argv[1]), Path(sys.argv[2]), chain.Conversion()
)
print(made.seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_an_hour_takes_no_more_memory_than_some_minutes(tmp_path: Path) -> None:
    part = speech(60.0)
    peaks = []
    for minutes in (4, 60):
        source = tmp_path / f"{minutes}.wav"
        with source.open("w+b") as file, WavWriter(file, 16000) as writer:
            for _ in range(minutes):
                writer.write(part)
        done = subprocess.run(
            [sys.executable, "-c", IN_A_CHILD, str(source), str(tmp_path / "out.wav")],
            check=True,
            capture_output=True,
            text=True,
        )
        seconds, megabytes = done.stdout.split()
        assert float(seconds) == pytest.approx(60 * minutes)
        peaks.append(int(megabytes))

    # an hour as samples in memory is 230 MB at 16 kHz before anything is done with it
    assert peaks[1] < peaks[0] + 60, peaks


def test_what_a_killed_conversion_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".converting-abc").mkdir()
    (tmp_path / ".converting-abc" / "source").write_bytes(b"samples")
    (tmp_path / "out.wav").write_bytes(b"a result")

    chain.sweep_leftovers(tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_samples_are_read_by_several_threads_as_by_one(tmp_path: Path) -> None:
    """Pitch and content of one recording are found side by side, from one file."""
    wave = np.random.default_rng(0).uniform(-1, 1, 400_000).astype(np.float32)
    with closing(SampleFile(tmp_path / "samples")) as samples:
        for part in np.array_split(wave, 7):
            samples.append(part)
        samples.append(wave[:0])

        def wrong(seed: int) -> int:
            places = np.random.default_rng(seed).integers(0, 300_000, 3000)
            return sum(not np.array_equal(samples.read(at, at + 20_000), wave[at : at + 20_000]) for at in places)

        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(wrong, range(4)))

    assert len(samples) == len(wave)
    assert found == [0, 0, 0, 0]
