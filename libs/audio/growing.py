"""How is sound sent while it is made? A file that is taken away piece by piece as it is written.

An encoder that goes back at the end, to write lengths or a checksum into a header, finds that header gone: what is sent
says instead that the length is not known, which players take as "until it ends".
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from typing import Literal

import numpy as np
import soundfile

from libs.audio.encode import OutputFormat, Wave
from libs.audio.write_stream import open_writer
from libs.common.errors import BrokenAudio

SentFormat = Literal["wav", "flac", "mp3", "ogg", "opus", "pcm"]
UNKNOWN_LENGTH = 0xFFFFFFFF
OPUS_RATES = (8000, 12000, 16000, 24000, 48000)


class _Taken:
    """A binary file that only grows; what was taken from it cannot be written again."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._gone = 0
        self._place = 0

    def write(self, data: bytes) -> int:
        begin = self._place - self._gone
        if begin < 0:  # into what was sent already
            fresh = data[-begin:]
            self._data[: len(fresh)] = fresh
        else:
            self._data[begin : begin + len(data)] = data
        self._place += len(data)
        return len(data)

    def read(self, size: int = -1) -> bytes:
        begin = max(0, self._place - self._gone)
        found = bytes(self._data[begin:] if size < 0 else self._data[begin : begin + size])
        self._place += len(found)
        return found

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = offset + (0, self._place, self._gone + len(self._data))[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def take(self) -> bytes:
        found = bytes(self._data)
        self._gone += len(found)
        self._data.clear()
        return found


class GrowingSound:
    """A mono sound of `sample_rate` Hz in `format`, whose bytes are taken while it is written."""

    def __init__(self, sample_rate: int, format: SentFormat) -> None:
        """MP3 and Opus know few rates; 24 kHz is one of both, others of Opus raise ValueError."""
        self._format = format
        self._file = _Taken()
        self._open = ExitStack()
        if format == "wav":
            self._file.write(_endless_wav(sample_rate))
        elif format == "opus":
            if sample_rate not in OPUS_RATES:
                raise ValueError(f"Opus has no {sample_rate} Hz")
            self._sound = self._open.enter_context(
                soundfile.SoundFile(self._file, "w", sample_rate, 1, format="OGG", subtype="OPUS")
            )
        elif format != "pcm":
            plain: OutputFormat = format
            self._sound = self._open.enter_context(open_writer(self._file, sample_rate, plain))  # type: ignore[arg-type]

    def write(self, wave: Wave) -> bytes:
        """Append mono `[n]`, cut at -1…1; what can be sent by now. Raises BrokenAudio for NaN and infinite samples."""
        if not np.isfinite(wave).all():
            raise BrokenAudio("The sound holds samples that are not numbers and cannot be written.")
        wave = np.clip(wave, -1.0, 1.0)
        if self._format in ("wav", "pcm"):
            self._file.write(np.clip(np.rint(wave * 32768.0), -32768, 32767).astype("<i2").tobytes())
        else:
            self._sound.write(wave)
        return self._file.take()

    def finish(self) -> bytes:
        """The rest of it. Nothing can be written afterwards."""
        self._open.close()
        return self._file.take()


def _endless_wav(rate: int) -> bytes:
    """A WAV header of PCM16 mono whose lengths say "until it ends"."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    return b"".join(
        [
            struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE"),
            form,
            struct.pack("<4sI", b"data", UNKNOWN_LENGTH),
        ]
    )
