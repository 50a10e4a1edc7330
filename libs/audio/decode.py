"""How does a file of any accepted format become samples? The one door to PyAV (FFmpeg).

Three walls stand between a hostile file and the rest of the machine, each enough by itself:

1. FFmpeg never sees a path. It reads from a Python file object, and `io_open`, the hook through which a demuxer opens
   further files or addresses, always refuses. Protocol handlers do not run at all (`protocol_whitelist` names none).
2. The demuxer is forced to the family that `sniff.py` found. Nothing is probed, so an `ffconcat`, HLS, DASH, SDP or
   image list under the name `.mp3` never reaches the demuxer that would follow it; `format_whitelist` says so again.
3. Only the family's audio decoders may be opened (`codec_whitelist`); cover art and video are discarded unread.

FFmpeg's log is left off, as PyAV ships it: its Python log hook takes the interpreter lock from inside FFmpeg's threads,
can deadlock, and prints what users send us. Decoders run with one thread each; many files run in many processes.

Numbers in headers are believed nowhere: duration is what came out of the decoder.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, NoReturn

import av
import numpy as np
import numpy.typing as npt
from av import stream as av_stream

from libs.audio.bounded_file import BoundedFile
from libs.audio.formats import Family
from libs.audio.headers import claimed_seconds, is_cut, lacks_index
from libs.audio.mixing import mono_weights, to_float
from libs.audio.resample import StreamResampler
from libs.audio.sniff import sniff_file
from libs.common.errors import BrokenAudio, PlatformError, RecordingTooLong, UnsupportedAudio

Wave = npt.NDArray[np.float32]

DEFAULT_LIMIT_SECONDS = 3600.0
BLOCK_SAMPLES = 65_536
LOUDEST_SAMPLE = 16.0
"""Float files may pass full scale (1.0) a little; one that passes it by 24 dB was written with the wrong scale."""

MAX_CHANNELS = 32
RATES = (1_000, 768_000)
IDLE_PACKETS = 20_000
"""Packets in a row that give no sample before a file counts as broken; a crafted index can hold millions of them."""


class Block(NamedTuple):
    """Part of a recording: `samples` float32 `[channels, n]` as decoded, at `sample_rate` Hz."""

    samples: Wave
    sample_rate: int


@dataclass(frozen=True)
class Sound:
    """A whole recording: `wave` float32 `[T]` (mono) or `[C, T]`, 1.0 is full scale, at `sample_rate` Hz."""

    wave: Wave
    sample_rate: int
    truncated: bool = False
    """The file ends before its content does; `wave` is what was there."""

    @property
    def seconds(self) -> float:
        """Duration, counted from the samples."""
        return int(self.wave.shape[-1]) / self.sample_rate


class Recording:
    """An opened sound file; iterate `blocks()` once, then read `seconds`, `truncated` and `damaged_packets`.

    Use as a context manager. `sample_rate` and `channels` are those of the first decoded frame: later frames with other
    ones are converted to them, so that a recording has one rate and one shape.

    Raises UnsupportedAudio (no accepted format, a codec that is not allowed, no audio track), BrokenAudio (nothing can
    be decoded, NaN or infinite samples, a wrong scale) and RecordingTooLong (more than `limit_seconds` of samples).
    """

    def __init__(self, path: Path, *, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> None:
        self.path = path
        self.family: Family = sniff_file(path)
        self.limit_seconds = limit_seconds
        self.samples = 0
        self.packet_bytes = 0
        self.packets = 0
        self.damaged_packets = 0
        self.stopped_early = False
        self._last_packet_damaged = False
        self._weights: Wave | None = None
        self._foreign: tuple[int, StreamResampler] | None = None
        self._file = BoundedFile(path)
        try:
            with _broken_when_av_fails():
                self._container: Any = self._opened()
            try:
                self._choose_stream()
            except BaseException:
                self._container.close()
                raise
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        with _broken_when_av_fails():
            self._container.close()
        self._file.close()

    @property
    def seconds(self) -> float:
        """Duration decoded so far, in seconds."""
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    @property
    def claimed_seconds(self) -> float | None:
        """The duration that the header states, where the format states one; only good for finding truncated files."""
        return self._claimed

    @property
    def truncated(self) -> bool:
        """True when less could be decoded than the header says, or when the content stops inside a packet."""
        if self.stopped_early or self._last_packet_damaged or is_cut(self.path, self.family.name):
            return True
        return self._claimed is not None and self._claimed - self.seconds > max(0.5, 0.01 * self._claimed)

    @property
    def mono_weights(self) -> Wave:
        """Weights `[channels]`, sum 1, that make a mono mix: `weights @ samples`."""
        assert self._weights is not None, "blocks() has not been started"
        return self._weights

    def blocks(self, block_samples: int = BLOCK_SAMPLES) -> Iterator[Wave]:
        """Float32 `[channels, n]` blocks of at least `block_samples` samples (the last one may be shorter)."""
        waiting: list[Wave] = []
        count = 0
        limit = int(self.limit_seconds * 1_000_000)
        for samples in self._frames_and_tail():
            self.samples += samples.shape[1]
            if self.samples * 1_000_000 > limit * self.sample_rate:
                raise RecordingTooLong(
                    f"The recording is longer than {self.limit_seconds:g} s, the limit for one file. "
                    "Cut it into shorter files.",
                    field="file",
                    limit_seconds=self.limit_seconds,
                )
            waiting.append(samples)
            count += samples.shape[1]
            if count >= block_samples:
                yield self._checked(waiting)
                waiting, count = [], 0
        if count:
            yield self._checked(waiting)
        if not self.samples:
            raise BrokenAudio(f"Not one sample of the {self.family.name} file could be decoded.", field="file")

    def _opened(self) -> Any:
        try:
            return _open(self._file, self.family)
        except PlatformError:
            raise
        except Exception as error:
            _raise_our_own(self._file, error)
            if lacks_index(self.path, self.family.name):
                raise BrokenAudio(
                    f"The {self.family.name} file is incomplete: its index (`moov`), which comes last, is missing. "
                    "Send it again.",
                    field="file",
                ) from error
            raise

    def _choose_stream(self) -> None:
        stream = next(iter(self._container.streams.audio), None)
        if stream is None:
            raise UnsupportedAudio(f"The {self.family.name} file holds no audio track.", field="file")
        for other in self._container.streams:
            if other.index != stream.index:
                _discard(other)
        context = stream.codec_context
        if context is None or context.codec is None or context.codec.name not in self.family.codecs:
            name = context.codec.name if context is not None and context.codec is not None else "unknown"
            raise UnsupportedAudio(f"The codec {name} is not accepted in a {self.family.name} file.", field="file")
        context.thread_count = 1
        self._stream = stream
        self.codec: str = context.codec.canonical_name
        self.sample_rate = 0
        self.channels = 0
        self._claimed = self._read_claim()

    def _read_claim(self) -> float | None:
        if not self.family.states_length:
            return claimed_seconds(self.path, self.family.name)
        if self._stream.duration is not None and self._stream.time_base is not None:
            return float(self._stream.duration * self._stream.time_base)
        if self._container.duration is not None:
            return float(self._container.duration / av.time_base)
        return None

    def _frames_and_tail(self) -> Iterator[Wave]:
        yield from self._frames()
        if self._foreign is not None:
            tail = self._foreign[1].finish()
            if tail.shape[1]:
                yield tail

    def _frames(self) -> Iterator[Wave]:
        idle = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except Exception as error:
                _raise_our_own(self._file, error)
                self.stopped_early = True
                return
            flushing = packet.size == 0
            if not flushing:
                self.packets += 1
                self.packet_bytes += packet.size
            try:
                decoded = packet.decode()
                if not flushing:
                    # a WAV's last packet is marked so whenever its header does not know the length
                    self._last_packet_damaged = bool(packet.is_corrupt) and self.family.name != "wav"
            except Exception as error:
                _raise_our_own(self._file, error)
                if flushing:
                    return
                self.damaged_packets += 1
                self._last_packet_damaged = True
                decoded = []
            idle = 0 if decoded else idle + 1
            if idle > IDLE_PACKETS:
                raise BrokenAudio(f"{IDLE_PACKETS} packets in a row hold no sound.", field="file")
            for frame in decoded:
                if frame.samples:
                    samples = self._converted(frame)
                    if samples.shape[1]:
                        yield samples

    def _converted(self, frame: Any) -> Wave:
        """The frame as float32 `[channels, n]` in the recording's own rate and layout."""
        with _broken_when_av_fails():
            samples = to_float(frame)
            rate = int(frame.sample_rate)
            weights = mono_weights(frame)
        if self._weights is None:
            channels = samples.shape[0]
            if not RATES[0] <= rate <= RATES[1] or not 1 <= channels <= MAX_CHANNELS:
                raise BrokenAudio(
                    f"{rate} Hz with {channels} channels is not plausible; accepted are {RATES[0]} to {RATES[1]} Hz "
                    f"and up to {MAX_CHANNELS} channels.",
                    field="file",
                )
            self.sample_rate, self.channels, self._weights = rate, channels, weights
            return samples
        if weights.shape != self._weights.shape or not np.array_equal(weights, self._weights):
            mono = weights @ samples
            samples = np.repeat(mono[None, :], self.channels, axis=0)
        if rate != self.sample_rate:
            if self._foreign is None or self._foreign[0] != rate:
                if not RATES[0] <= rate <= RATES[1]:
                    raise BrokenAudio(f"The sample rate changes to {rate} Hz in the middle.", field="file")
                self._foreign = (rate, StreamResampler(rate, self.sample_rate, channels=self.channels))
            samples = self._foreign[1].push(samples)
        elif self._foreign is not None:
            tail = self._foreign[1].finish()
            self._foreign = None
            samples = np.concatenate([tail, samples], axis=1)
        return samples

    def _checked(self, waiting: list[Wave]) -> Wave:
        block = np.concatenate(waiting, axis=1)
        peak = max(float(block.max()), -float(block.min()))
        if not np.isfinite(peak):
            at = int(np.argmax(~np.isfinite(block).all(axis=0))) + self.samples - block.shape[1]
            raise BrokenAudio(
                f"The recording holds samples that are not numbers (NaN or infinite), the first at "
                f"{at / self.sample_rate:.3f} s. Export it again as PCM.",
                field="file",
            )
        if peak > LOUDEST_SAMPLE:
            raise BrokenAudio(
                f"Samples reach {peak:.0f} where full scale is 1.0: the file was written with the wrong scale. "
                "Export it again as PCM.",
                field="file",
            )
        return block


def frames(path: Path, *, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> Iterator[Block]:
    """Decode `path` block by block, in bounded memory. Samples are as decoded: float files may pass ±1."""
    with Recording(path, limit_seconds=limit_seconds) as recording:
        for samples in recording.blocks():
            yield Block(samples, recording.sample_rate)


def decode(path: Path, *, mono: bool = True, limit_seconds: float = DEFAULT_LIMIT_SECONDS) -> Sound:
    """Decode the whole of `path` as `[T]` (mono) or `[C, T]`. Errors as for `Recording`.

    Samples are as decoded: float and lossy files may pass ±1, up to 16. Whoever writes them turns them down or clips.
    """
    parts: list[Wave] = []
    with Recording(path, limit_seconds=limit_seconds) as recording:
        for samples in recording.blocks():
            parts.append((recording.mono_weights @ samples) if mono else samples)
        wave = np.concatenate(parts, axis=-1)
        return Sound(wave, recording.sample_rate, recording.truncated)


def _open(file: BoundedFile, family: Family) -> Any:
    return av.open(
        file,
        mode="r",
        format=family.demuxer,
        options={
            "protocol_whitelist": "none",
            "format_whitelist": ",".join((",".join(family.demuxers), *family.demuxers)),
            "codec_whitelist": ",".join(sorted(family.codecs)),
            "enable_drefs": "0",
            "max_streams": "64",
        },
        metadata_errors="ignore",
        io_open=_refuse_to_open,
    )


def _discard(stream: Any) -> None:
    """Let the demuxer skip a stream. PyAV before 18 cannot; there its packets are only not asked for."""
    kinds = getattr(av_stream, "Discard", None)
    if kinds is not None:
        stream.discard = kinds.all


def _refuse_to_open(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise UnsupportedAudio(
        "The file refers to sound in another file or at an address; only a file that holds its own sound is accepted.",
        field="file",
    )


def _raise_our_own(file: BoundedFile, error: Exception) -> None:
    """Raises again what is not the recording's fault."""
    file.raise_own_error(error)
    if _is_our_memory(error):
        raise error


def _is_our_memory(error: Exception) -> bool:
    """True for Python's own MemoryError; FFmpeg's means that a damaged header asks for gigabytes."""
    return isinstance(error, MemoryError) and not isinstance(error, av.FFmpegError)


@contextmanager
def _broken_when_av_fails() -> Iterator[None]:
    """PyAV raises its own tree, and ValueError, RuntimeError or IndexError for odd files: here they are all one."""
    try:
        yield
    except PlatformError:
        raise
    except Exception as error:
        if _is_our_memory(error):
            raise
        reason = str(getattr(error, "strerror", "") or error).strip() or type(error).__name__
        raise BrokenAudio(f"The file cannot be decoded: {reason[:200]}.", field="file") from error
