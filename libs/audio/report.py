"""What does a person need to know about a recording before it is used? One report per file, with warnings."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from libs.audio.decode import Recording, Wave
from libs.audio.measure import FRAME_SECONDS, SILENT_DBFS, Channels, Frames, Loudness, speech_levels
from libs.common.errors import RecordingTooShort, SilentRecording

AUDIBLE_SECONDS = 0.1
"""A recording with less sound above -60 dBFS than this is silent; a click of a switch is not a recording."""

PEAK_FLOOR_DBFS = -120.0


@dataclass(frozen=True)
class Limits:
    """What a recording must keep to. Outside of it, it is refused."""

    max_seconds: float = 3600.0
    min_seconds: float = 0.3


@dataclass(frozen=True)
class Thresholds:
    """Where warnings begin. A warned recording is still accepted."""

    clipped_ratio: float = 0.0005
    clipped_runs: int = 5
    snr_db: float = 15.0
    silence_ratio: float = 0.7
    loudness_lufs: float = -40.0
    bandwidth_hz: float = 7000.0
    dc_offset: float = 0.02
    cancelled_db: float = 12.0
    damaged_ratio: float = 0.01


@dataclass(frozen=True)
class ReportWarning:
    """One thing that may spoil a voice trained on this recording: `value` was measured, `limit` would be fine."""

    code: str
    message: str
    value: float | None = None
    limit: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Report:
    """Measurements of one recording.

    `peak_dbfs`, `clipped_ratio` and `clipped_runs` are over all source channels, `dc_offset` that of the worst one;
    `snr_db`, `silence_ratio`, `loudness_lufs` and `bandwidth_hz` those of the mono mix. `bit_rate` is counted from the
    packets of the sound track, `duration_seconds` from decoded samples. None where there is too little to measure.
    """

    duration_seconds: float
    container: str
    codec: str
    sample_rate: int
    channels: int
    bit_rate: int
    peak_dbfs: float
    clipped_ratio: float
    clipped_runs: int
    snr_db: float | None
    silence_ratio: float
    loudness_lufs: float | None
    bandwidth_hz: float
    dc_offset: float
    truncated: bool = False
    damaged_packets: int = 0
    warnings: tuple[ReportWarning, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """As JSON: every number finite, warnings as a list of objects."""
        return asdict(self) | {"warnings": [warning.to_dict() for warning in self.warnings]}


class Analyser:
    """Collects a report while a recording is decoded: `feed` every block and its mono mix, then `report`."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._channels = Channels()
        self._frames = Frames(recording.sample_rate)
        self._loudness = Loudness(recording.sample_rate)
        self._mono_square = 0.0

    def feed(self, samples: Wave, mono: Wave) -> None:
        """Take `samples` `[C, n]` as decoded and their mix `mono` `[n]`."""
        self._channels.feed(samples)
        self._frames.feed(mono)
        self._loudness.feed(mono)
        self._mono_square += float(np.dot(mono, mono))

    def report(self, *, limits: Limits | None = None, thresholds: Thresholds | None = None) -> Report:
        """The finished report. Raises RecordingTooShort and SilentRecording."""
        limits, thresholds = limits or Limits(), thresholds or Thresholds()
        recording, channels = self._recording, self._channels
        seconds = recording.seconds
        if seconds < limits.min_seconds:
            raise RecordingTooShort(
                f"The recording lasts {seconds:.2f} s; at least {limits.min_seconds:g} s are needed.",
                field="file",
                min_seconds=limits.min_seconds,
            )
        snr, silence, audible = speech_levels(self._frames.levels())
        cancelled = self._cancelled_db()
        if audible < max(1, min(AUDIBLE_SECONDS, seconds / 2) / FRAME_SECONDS - 0.5):
            self._raise_silent(cancelled)
        per_channel = max(1, recording.samples)
        report = Report(
            duration_seconds=round(seconds, 6),
            container=recording.family.name,
            codec=recording.codec,
            sample_rate=recording.sample_rate,
            channels=recording.channels,
            bit_rate=round(recording.packet_bytes * 8 / seconds),
            peak_dbfs=round(_dbfs(channels.peak), 2),
            clipped_ratio=channels.clipped / max(1, channels.samples),
            clipped_runs=channels.clipped_runs,
            snr_db=None if snr is None else round(snr, 1),
            silence_ratio=round(silence, 4),
            loudness_lufs=_rounded(self._loudness.integrated()),
            bandwidth_hz=round(self._frames.bandwidth(), 0),
            dc_offset=round(float(np.abs(channels.sums).max() / per_channel), 5),
            truncated=recording.truncated,
            damaged_packets=recording.damaged_packets,
        )
        warnings = tuple(_warnings(report, thresholds, cancelled, recording))
        return Report(**{**vars(report), "warnings": warnings})

    def _cancelled_db(self) -> float:
        """By how many dB the mono mix is weaker than the strongest channel."""
        strongest = float(self._channels.squares.max(initial=0.0))
        if strongest <= 0.0:
            return 0.0
        return 10 * math.log10(strongest / max(self._mono_square, strongest * 1e-12))

    def _raise_silent(self, cancelled: float) -> None:
        if cancelled > 20.0 and _dbfs(self._channels.peak) > SILENT_DBFS:
            raise SilentRecording(
                "Left and right cancel each other (one is the other turned over), so that nothing is left in mono. "
                "Send one channel only.",
                field="file",
            )
        raise SilentRecording(
            f"Less than {AUDIBLE_SECONDS:g} s of the recording is louder than {SILENT_DBFS:g} dBFS; its peak is "
            f"{_dbfs(self._channels.peak):.1f} dBFS.",
            field="file",
        )


def _warnings(report: Report, at: Thresholds, cancelled: float, recording: Recording) -> list[ReportWarning]:
    found: list[ReportWarning] = []

    def warn(code: str, message: str, value: float | None = None, limit: float | None = None) -> None:
        found.append(ReportWarning(code, message, None if value is None else round(value, 6), limit))

    if report.truncated:
        claim = recording.claimed_seconds
        says = f"says that it lasts {claim:.1f} s, but" if claim and claim > report.duration_seconds else "ends early:"
        warn(
            "truncated",
            f"The file {says} {report.duration_seconds:.1f} s could be read. Send it again if the rest matters.",
            report.duration_seconds,
            claim,
        )
    damaged = report.damaged_packets / max(1, recording.packets)
    if damaged > at.damaged_ratio and report.damaged_packets > 1:
        warn("damaged", f"{damaged:.0%} of the file is damaged and was left out.", damaged, at.damaged_ratio)
    if report.clipped_ratio > at.clipped_ratio or report.clipped_runs > at.clipped_runs:
        warn(
            "clipping",
            f"The recording is overdriven: {report.clipped_ratio:.2%} of the samples are at full scale, "
            f"in {report.clipped_runs} places. Record with a lower level.",
            report.clipped_ratio,
            at.clipped_ratio,
        )
    if report.snr_db is not None and report.snr_db < at.snr_db:
        warn(
            "noisy",
            f"There is much noise behind the voice, or music, or no pause at all (estimated distance "
            f"{report.snr_db:.0f} dB; {at.snr_db:.0f} dB or more is good). Record in a quieter room.",
            report.snr_db,
            at.snr_db,
        )
    if report.silence_ratio > at.silence_ratio:
        warn("mostly_silent", f"{report.silence_ratio:.0%} is silence.", report.silence_ratio, at.silence_ratio)
    if report.loudness_lufs is not None and report.loudness_lufs < at.loudness_lufs:
        warn(
            "too_quiet",
            f"The recording is very quiet ({report.loudness_lufs:.0f} LUFS). Go nearer to the microphone.",
            report.loudness_lufs,
            at.loudness_lufs,
        )
    if report.bandwidth_hz < at.bandwidth_hz:
        origin = ""
        if report.bandwidth_hz < 0.7 * report.sample_rate / 2:
            origin = f", although the file has {report.sample_rate} Hz: it was probably made from a poorer recording"
        warn(
            "narrow_band",
            f"There is nothing above {report.bandwidth_hz / 1000:.1f} kHz{origin}. A voice trained on it sounds like a "
            "telephone.",
            report.bandwidth_hz,
            at.bandwidth_hz,
        )
    if report.dc_offset > at.dc_offset:
        warn(
            "dc_offset",
            "The waveform is not centred on zero, which points to a faulty sound card or microphone.",
            report.dc_offset,
            at.dc_offset,
        )
    if cancelled > at.cancelled_db:
        warn(
            "channels_cancel",
            f"Mixed to mono, the recording loses {cancelled:.0f} dB: its channels cancel each other. Send only one.",
            cancelled,
            at.cancelled_db,
        )
    return found


def _dbfs(value: float) -> float:
    return max(PEAK_FLOOR_DBFS, 20 * math.log10(max(value, 1e-12)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
