"""How does sound become a file while it is made? WAV, FLAC, MP3 and OGG written block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Protocol

import numpy as np
import soundfile

from libs.audio.encode import SUBTYPES, OutputFormat, Wave, WavWriter, rate_for
from libs.audio.resample import StreamResampler
from libs.common.errors import BrokenAudio

_BLOCK = 65_536


class SoundWriter(Protocol):
    """An open sound file; `sample_rate` is the one in its header."""

    sample_rate: int

    def write(self, wave: Wave) -> None:
        """Append mono `[n]`; peaks beyond -1…1 are cut. Raises BrokenAudio for NaN and infinite samples."""
        ...


@contextmanager
def open_writer(file: IO[bytes], sample_rate: int, format: OutputFormat) -> Iterator[SoundWriter]:
    """A mono sound file of `sample_rate` Hz in the open binary `file`, complete when the block ends well.

    The same bytes as `libs.audio.encode.encode` where the format does not depend on how it is fed. MP3 has nine rates:
    others are resampled to the next higher one.
    """
    if format == "wav":
        with WavWriter(file, sample_rate) as wav:
            yield _Wav(wav, sample_rate)
        return
    rate = rate_for(format, sample_rate)
    resampler = StreamResampler(sample_rate, rate)
    watched = _Watched(file)
    with soundfile.SoundFile(watched, "w", rate, 1, format=format.upper(), subtype=SUBTYPES[format]) as sound:
        writer = _Encoded(sound, watched, resampler, rate)
        yield writer
        writer.put(resampler.finish())
    watched.check()


class _Wav:
    def __init__(self, writer: WavWriter, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self._writer = writer

    def write(self, wave: Wave) -> None:
        self._writer.write(_cut(wave))


class _Encoded:
    def __init__(self, sound: soundfile.SoundFile, file: _Watched, resampler: StreamResampler, rate: int) -> None:
        self.sample_rate = rate
        self._sound, self._file, self._resampler = sound, file, resampler

    def write(self, wave: Wave) -> None:
        self.put(self._resampler.push(_cut(wave)))

    def put(self, wave: Wave) -> None:
        wave = np.clip(wave, -1.0, 1.0)
        # libsndfile's Vorbis encoder takes stack space in proportion to one write
        for start in range(0, len(wave), _BLOCK):
            self._sound.write(wave[start : start + _BLOCK])
            self._file.check()


class _Watched:
    """A file that keeps its first error: libsndfile asks through C, where an exception of Python's is lost."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self._error = self._error or error
            return len(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def check(self) -> None:
        """Raises what a write met."""
        if self._error is not None:
            raise self._error


def _cut(wave: Wave) -> Wave:
    if not np.isfinite(wave).all():
        raise BrokenAudio("The wave holds samples that are not numbers (NaN or infinite) and cannot be written.")
    return np.clip(wave, -1.0, 1.0)
