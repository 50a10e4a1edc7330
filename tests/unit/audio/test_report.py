"""Does the report measure what it says, and warn where a person should know?"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyloudnorm
import pytest
import soundfile

from libs.audio.decode import Wave
from libs.audio.measure import Channels, Frames, Loudness, speech_levels
from libs.audio.report import Limits, Report, Thresholds
from libs.audio.resample import resample
from libs.audio.transcode import inspect
from libs.common.errors import RecordingTooLong, RecordingTooShort, SilentRecording
from tests.factories_audio import encode_as, make_speech, speech, tone, write_float_wav


def reported(wave: Wave, path: Path, rate: int = 22_050, thresholds: Thresholds | None = None) -> Report:
    return inspect(encode_as("wav", wave, rate, path / "recording.wav"), thresholds=thresholds)


def codes(report: Report) -> set[str]:
    return {warning.code for warning in report.warnings}


def test_good_speech_has_a_report_without_warnings(tmp_path: Path) -> None:
    path = make_speech(6.0, "en-us", tmp_path / "good.flac")

    report = inspect(path)

    assert report.warnings == ()
    assert (report.container, report.codec, report.sample_rate, report.channels) == ("flac", "flac", 22_050, 1)
    assert report.duration_seconds == pytest.approx(6.0)
    assert report.bandwidth_hz > 9_000
    assert report.bit_rate == pytest.approx(path.stat().st_size * 8 / 6.0, rel=0.1)


def test_a_report_is_json_with_finite_numbers(tmp_path: Path) -> None:
    report = reported(tone(0.31, level=0.5), tmp_path)

    body = json.loads(json.dumps(report.to_dict(), allow_nan=False))

    assert body["duration_seconds"] == pytest.approx(0.31, abs=1e-3)
    assert body["loudness_lufs"] is None
    assert {"code", "message", "value", "limit"} == set(body["warnings"][0])


def test_peak_and_offset_are_those_of_the_samples(tmp_path: Path) -> None:
    report = reported(tone(1.0, level=0.5) + np.float32(0.1), tmp_path)

    assert report.peak_dbfs == pytest.approx(20 * np.log10(0.6), abs=0.01)
    assert report.dc_offset == pytest.approx(0.1, abs=1e-3)
    assert "dc_offset" in codes(report)


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
def test_loudness_is_that_of_the_standards_reference_tone(rate: int) -> None:
    """BS.1770: a 997 Hz sine at 0 dBFS in one channel reads -3.01 LKFS."""
    meter = Loudness(rate)

    for block in np.array_split(tone(5.0, 997.0, rate=rate, level=1.0), 7):
        meter.feed(block)

    assert meter.integrated() == pytest.approx(-3.01, abs=0.1)


def test_loudness_of_speech_agrees_with_another_implementation() -> None:
    wave = speech(10.0, rate=48_000)
    meter = Loudness(48_000)
    meter.feed(wave)

    assert meter.integrated() == pytest.approx(pyloudnorm.Meter(48_000).integrated_loudness(wave), abs=0.1)


def test_less_than_four_tenths_of_a_second_has_no_loudness() -> None:
    meter = Loudness(22_050)
    meter.feed(tone(0.39))

    assert meter.integrated() is None


def test_overdriven_speech_is_warned_of(tmp_path: Path) -> None:
    wave = np.clip(speech(5.0) * 4.0, -1.0, 1.0)

    report = reported(wave, tmp_path)

    assert report.clipped_ratio == pytest.approx(float((np.abs(wave) >= 0.999).mean()), abs=1e-4)
    assert report.clipped_runs > 50
    assert "clipping" in codes(report)


def test_runs_of_clipped_samples_are_counted_once_across_blocks() -> None:
    wave = np.zeros((1, 100), np.float32)
    wave[0, 10:14] = 1.0  # a run
    wave[0, 28:33] = -1.0  # a run that a block ends in
    wave[0, 50:52] = 1.0  # too short for a run
    wave[0, 60:90] = 1.0  # a run over several blocks

    measured = {}
    for size in (100, 30, 10, 7):
        channels = Channels()
        for start in range(0, 100, size):
            channels.feed(wave[:, start : start + size])
        measured[size] = (channels.clipped, channels.clipped_runs)

    assert set(measured.values()) == {(41, 3)}


@pytest.mark.parametrize("snr", [5.0, 10.0, 15.0, 20.0])
def test_the_estimated_distance_to_the_noise_is_near_the_true_one(snr: float, tmp_path: Path) -> None:
    """espeak-ng runs its words together: pauses as between sentences are put in."""
    pause = np.zeros(11_025, np.float32)
    wave = np.concatenate([part for seed in range(5) for part in (speech(2.0, seed=seed), pause)])
    power = float(np.mean(wave[np.abs(wave) > 0.01] ** 2))
    noise = np.random.default_rng(4).standard_normal(len(wave)) * np.sqrt(power / 10 ** (snr / 10))

    report = reported((wave + noise).astype(np.float32) * 0.5, tmp_path)

    assert report.snr_db is not None
    assert report.snr_db == pytest.approx(snr, abs=4.0)
    assert ("noisy" in codes(report)) == (report.snr_db < 15.0)


def test_noise_alone_is_noisy(tmp_path: Path) -> None:
    noise = np.random.default_rng(5).standard_normal(44_100).astype(np.float32) * 0.1

    report = reported(noise, tmp_path)

    assert report.snr_db is not None
    assert report.snr_db < 3.0
    assert "noisy" in codes(report)


def test_the_share_of_silence_is_measured(tmp_path: Path) -> None:
    wave = np.concatenate([speech(2.0), np.zeros(8 * 22_050, np.float32)])

    report = reported(wave, tmp_path)

    assert report.silence_ratio == pytest.approx(0.8, abs=0.1)
    assert "mostly_silent" in codes(report)


@pytest.mark.parametrize("original", [8_000, 11_025])
def test_material_sampled_up_is_recognised_by_its_bandwidth(original: int, tmp_path: Path) -> None:
    wave = resample(resample(speech(5.0, rate=44_100), 44_100, original), original, 44_100)

    report = reported(wave, tmp_path, 44_100)

    assert report.bandwidth_hz == pytest.approx(original / 2, rel=0.08)
    assert "narrow_band" in codes(report)
    assert "poorer recording" in next(w.message for w in report.warnings if w.code == "narrow_band")


def test_very_quiet_speech_is_warned_of(tmp_path: Path) -> None:
    report = reported(speech(3.0) * np.float32(0.01), tmp_path)

    assert "too_quiet" in codes(report)


def test_channels_that_cancel_each_other_are_warned_of_or_refused(tmp_path: Path) -> None:
    left = speech(3.0) * np.float32(0.5)
    almost = np.stack([left, -0.9 * left])
    wholly = np.stack([left, -left])

    report = reported(almost.astype(np.float32), tmp_path)
    with pytest.raises(SilentRecording, match="cancel each other"):
        reported(wholly, tmp_path)

    assert "channels_cancel" in codes(report)


def test_a_truncated_file_is_named_with_both_lengths(tmp_path: Path) -> None:
    path = make_speech(10.0, "en-us", tmp_path / "cut.mp3")
    path.write_bytes(path.read_bytes()[:80_000])

    report = inspect(path)

    warning = next(w for w in report.warnings if w.code == "truncated")
    assert report.truncated
    assert "10.1 s" in warning.message
    assert f"{report.duration_seconds:.1f} s could be read" in warning.message


@pytest.mark.parametrize("level", [0.0, 0.0005])
def test_silence_is_refused(level: float, tmp_path: Path) -> None:
    with pytest.raises(SilentRecording, match="peak"):
        reported(tone(3.0, level=level), tmp_path)


def test_a_click_in_silence_is_still_silence(tmp_path: Path) -> None:
    wave = np.zeros(66_150, np.float32)
    wave[30_000:30_020] = 0.9

    with pytest.raises(SilentRecording):
        reported(wave, tmp_path)


def test_a_recording_of_a_fifth_of_a_second_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(RecordingTooShort, match=r"0\.20 s; at least 0\.3 s"):
        reported(tone(0.2), tmp_path)


def test_the_shortest_and_longest_durations_are_parameters(tmp_path: Path) -> None:
    path = encode_as("wav", tone(0.2), 22_050, tmp_path / "short.wav")

    assert inspect(path, limits=Limits(min_seconds=0.1)).duration_seconds == pytest.approx(0.2)
    with pytest.raises(RecordingTooLong):
        inspect(path, limits=Limits(max_seconds=0.15))


def test_a_float_recording_beyond_full_scale_reports_its_true_peak(tmp_path: Path) -> None:
    report = inspect(write_float_wav(tmp_path / "hot.wav", tone(1.0, level=2.0)))

    assert report.peak_dbfs == pytest.approx(6.02, abs=0.05)
    assert "clipping" in codes(report)


@pytest.mark.corpus
@pytest.mark.skipif("VOICE_CORPUS" not in os.environ, reason="VOICE_CORPUS is not set")
def test_real_speech_with_known_noise_is_estimated_within_three_decibels() -> None:
    files = sorted(Path(os.environ["VOICE_CORPUS"]).rglob("*.flac"))[:12]
    errors = []

    for file in files:
        wave, rate = soundfile.read(file, dtype="float32")
        frames = Frames(rate)
        frames.feed(wave)
        levels = frames.levels()
        power = float(np.mean(10 ** (levels[levels > np.percentile(levels, 95) - 30] / 10)))
        noise = np.random.default_rng(6).standard_normal(len(wave)) * np.sqrt(power / 10)
        noisy = Frames(rate)
        noisy.feed((wave + noise).astype(np.float32))
        estimate = speech_levels(noisy.levels())[0]
        assert estimate is not None
        errors.append(estimate - 10.0)

    assert max(np.abs(errors)) < 3.0
