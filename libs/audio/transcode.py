"""How does an upload become a training WAV? One pass in bounded memory: decode, measure, mix, resample, write."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from libs.audio.decode import Recording
from libs.audio.encode import WavWriter, atomic_file
from libs.audio.report import Analyser, Limits, Report, Thresholds
from libs.audio.resample import StreamResampler

LJSPEECH_RATE = 22_050


def transcode(
    source: Path,
    target: Path,
    *,
    sample_rate: int = LJSPEECH_RATE,
    limits: Limits | None = None,
    thresholds: Thresholds | None = None,
) -> Report:
    """Write `source` (any accepted format) as mono PCM16 at `sample_rate` Hz to `target`, and report on it.

    `target` appears whole or not at all. Memory does not grow with the recording but for 0.5 kB per second of
    measurements. Channels are mixed as `Recording.mono_weights` says; what passes full scale is clipped and reported.

    Raises UnsupportedAudio, BrokenAudio, RecordingTooLong, RecordingTooShort, SilentRecording, StorageFull.
    """
    limits = limits or Limits()
    with (
        Recording(source, limit_seconds=limits.max_seconds) as recording,
        atomic_file(target) as file,
        WavWriter(file, sample_rate) as writer,
    ):
        analyser: Analyser | None = None
        resampler: StreamResampler | None = None
        for samples in recording.blocks():
            if analyser is None or resampler is None:
                analyser = Analyser(recording)
                resampler = StreamResampler(recording.sample_rate, sample_rate)
            mono = np.asarray(recording.mono_weights @ samples, dtype=np.float32)
            analyser.feed(samples, mono)
            writer.write(resampler.push(mono))
        # blocks() raises BrokenAudio when there was none
        assert analyser is not None
        assert resampler is not None
        writer.write(resampler.finish())
        return analyser.report(limits=limits, thresholds=thresholds)


def inspect(source: Path, *, limits: Limits | None = None, thresholds: Thresholds | None = None) -> Report:
    """The report of `transcode` without a target."""
    limits = limits or Limits()
    with Recording(source, limit_seconds=limits.max_seconds) as recording:
        analyser: Analyser | None = None
        for samples in recording.blocks():
            analyser = analyser or Analyser(recording)
            analyser.feed(samples, np.asarray(recording.mono_weights @ samples, dtype=np.float32))
        assert analyser is not None
        return analyser.report(limits=limits, thresholds=thresholds)
