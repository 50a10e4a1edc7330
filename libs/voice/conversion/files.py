"""How is a file of any length converted in bounded memory? Three passes over samples that wait on the disk.

input → blocks → mono → 16 kHz ───────────→ samples       decoded once; the peak is known at its end
samples → pitch, chunks one after the other → converted   the same code as for a wave in memory
converted → loudness → resampled → output                 twice: first for the peak, then into the file
"""

from __future__ import annotations

import ctypes
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from libs.audio.decode import Recording
from libs.audio.encode import OutputFormat, atomic_file, check_wav_size
from libs.audio.resample import StreamResampler
from libs.audio.write_stream import open_writer
from libs.common.errors import Cancelled
from libs.voice.conversion.converter import Converter
from libs.voice.conversion.formant import CONTEXT, STEP, shift_formants
from libs.voice.conversion.loudness import OUTPUT_PEAK, LoudnessGain, rms_curve
from libs.voice.conversion.settings import SAMPLE_RATE, Conversion, check_output_rate
from libs.voice.conversion.source import FileSource, SampleFile, check_recording

Float32 = NDArray[np.float32]

DEFAULT_LIMIT_SECONDS = 24 * 3600.0
BLOCK_SECONDS = 30
PCM_BYTES = 2
LEFTOVER_PREFIX = ".converting-"
DECODED, RENDERED, WRITTEN = 0.05, 0.95, 1.0
"""Share of the work that is done after each pass."""


@dataclass(frozen=True)
class ConvertedFile:
    """What was written: `seconds` of sound at `sample_rate` Hz, and the seconds of work that it took."""

    seconds: float
    sample_rate: int
    took: float


def convert_file(
    converter: Converter,
    source: Path,
    target: Path,
    conversion: Conversion,
    *,
    output_format: OutputFormat = "wav",
    output_rate: int | None = None,
    limit_seconds: float = DEFAULT_LIMIT_SECONDS,
    on_progress: Callable[[float], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ConvertedFile:
    """Converts the recording `source` (any accepted format) into `target`, which appears whole or not at all.

    Memory does not grow with the length; beside `target` a hidden folder holds about 64 kB per second of input and four
    bytes per sample of output. It is removed when the call ends, however it ends; a killed process leaves it for
    `sweep_leftovers`. `output_rate` in Hz, 8000…192000: resampled if it is not
    the voice's. `on_progress` gets the share done, 0…1, rising; `should_stop` is asked often, and Cancelled is raised.

    Raises what libs.audio.decode raises (UnsupportedAudio, BrokenAudio, RecordingTooLong), RecordingTooShort,
    InvalidInput (also for a result too long for a WAV, before it is converted) and StorageFull.
    """
    check_output_rate(output_rate)
    began = time.perf_counter()
    progress = _Progress(on_progress, should_stop)
    with (
        tempfile.TemporaryDirectory(dir=target.parent, prefix=LEFTOVER_PREFIX) as folder,
        # atomic_file comes first for its StorageFull, which covers the samples on the same disk too
        atomic_file(target) as file,
        closing(SampleFile(Path(folder) / "source")) as samples,
        closing(SampleFile(Path(folder) / "shifted")) as shifted,
        closing(SampleFile(Path(folder) / "converted")) as converted,
    ):
        _decode(source, samples, limit_seconds, progress)
        final_rate = output_rate or converter.synthesizer.sample_rate
        if output_format == "wav":  # known now, and not after hours of work
            check_wav_size(len(samples) * final_rate // SAMPLE_RATE * PCM_BYTES)
        if conversion.formant_timbre != 1.0:
            _shift(samples, shifted, conversion, progress)
        prepared = FileSource(shifted if len(shifted) else samples)
        for part, share in converter.chunks(prepared, conversion, progress.stopped):
            converted.append(part)
            _give_back_memory()
            progress.at(DECODED + share * (RENDERED - DECODED))
        rate = converter.synthesizer.sample_rate
        gain = None
        if (mix := conversion.mix_of(converter.synthesizer)) != 1.0:
            wanted, own = rms_curve(prepared, SAMPLE_RATE // 2), rms_curve(converted, rate // 2)
            gain = LoudnessGain(wanted, own, len(converted), mix)
        peak = 0.0
        for block in _finished(converted, gain, rate, final_rate):
            progress.ask()
            peak = max(peak, float(np.abs(block).max(initial=0.0)))
        excess = np.float32(max(peak / OUTPUT_PEAK, 1.0))
        written = 0
        with open_writer(file, final_rate, output_format) as writer:
            for block in _finished(converted, gain, rate, final_rate):
                progress.ask()
                writer.write(block / excess)
                written += len(block)
    progress.at(WRITTEN)
    return ConvertedFile(written / final_rate, writer.sample_rate, time.perf_counter() - began)


def sweep_leftovers(folder: Path) -> None:
    """Remove what killed calls of `convert_file` left in `folder`. Only while no other call converts into it."""
    for left in folder.glob(f"{LEFTOVER_PREFIX}*"):
        shutil.rmtree(left, ignore_errors=True)


def _give_back_memory() -> None:
    """Lets glibc return what is free: blocks of ever other sizes leave holes, some megabytes a minute of recording."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


class _Progress:
    """Tells and asks, so that the passes need not look whether anybody listens."""

    def __init__(self, tell: Callable[[float], None] | None, stop: Callable[[], bool] | None) -> None:
        self._tell, self._stop = tell, stop

    def at(self, share: float) -> None:
        if self._tell is not None:
            self._tell(share)

    def stopped(self) -> bool:
        return self._stop is not None and self._stop()

    def ask(self) -> None:
        if self.stopped():
            raise Cancelled


def _decode(source: Path, samples: SampleFile, limit_seconds: float, progress: _Progress) -> None:
    resampler: StreamResampler | None = None
    with Recording(source, limit_seconds=limit_seconds) as recording:
        for block in recording.blocks():
            progress.ask()
            if resampler is None:
                resampler = StreamResampler(recording.sample_rate, SAMPLE_RATE)
            samples.append(resampler.push(recording.mono_weights @ block))
        check_recording(recording.samples, recording.sample_rate)
    assert resampler is not None
    samples.append(resampler.finish())
    progress.at(DECODED)


def _shift(samples: SampleFile, shifted: SampleFile, conversion: Conversion, progress: _Progress) -> None:
    """Formants moved, stretch by stretch on the grid of the whole."""
    step = BLOCK_SECONDS * SAMPLE_RATE // STEP * STEP
    context = 2 * CONTEXT
    for start in range(0, len(samples), step):
        progress.ask()
        stop = min(start + step, len(samples))
        begin = max(0, start - context)
        near = samples.read(begin, min(len(samples), stop + context))
        moved = shift_formants(near, conversion.formant_timbre, conversion.formant_quefrency)
        shifted.append(moved[start - begin : stop - begin])


def _finished(converted: SampleFile, gain: LoudnessGain | None, rate: int, final_rate: int) -> Iterator[Float32]:
    """The converted samples with their loudness at the final rate, block by block."""
    resampler = StreamResampler(rate, final_rate)
    for start in range(0, len(converted), BLOCK_SECONDS * rate):
        stop = min(start + BLOCK_SECONDS * rate, len(converted))
        block = converted.read(start, stop)
        if gain is not None:
            block = np.asarray(block * gain.at(start, stop), dtype=np.float32)
        yield resampler.push(block)
    yield resampler.finish()
