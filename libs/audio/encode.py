"""How do arrays become files? WAV (PCM16, float32) with a writer of our own, FLAC, MP3 and OGG through libsndfile.

Nothing is half-written under its final name: files grow under a hidden name beside it and are renamed when complete.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Literal

import numpy as np
import numpy.typing as npt
import soundfile

from libs.audio.resample import resample
from libs.common.errors import BrokenAudio, InvalidInput, StorageFull

Wave = npt.NDArray[np.float32]
OutputFormat = Literal["wav", "flac", "mp3", "ogg"]
Subtype = Literal["PCM_16", "FLOAT"]
Overshoot = Literal["clip", "scale"]

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_WAV_LIMIT = 0xFFFFFFFF - 1024
_BLOCK = 65_536
SUBTYPES = {"flac": "PCM_16", "mp3": "MPEG_LAYER_III", "ogg": "VORBIS"}
_SUFFIX = ".part"


@dataclass(frozen=True)
class Encoding:
    """One output format: its HTTP content type and file extension."""

    mime: str
    extension: str


ENCODINGS: dict[str, Encoding] = {
    "wav": Encoding("audio/wav", ".wav"),
    "flac": Encoding("audio/flac", ".flac"),
    "mp3": Encoding("audio/mpeg", ".mp3"),
    "ogg": Encoding("audio/ogg", ".ogg"),
}


def encode(
    wave: Wave,
    sample_rate: int,
    format: OutputFormat,
    *,
    subtype: Subtype = "PCM_16",
    overshoot: Overshoot = "clip",
) -> bytes:
    """`wave` float32 `[T]` or `[C, T]` at `sample_rate` Hz as the bytes of a whole file.

    `overshoot` says what happens beyond -1…1: "clip" cuts the peaks, "scale" turns the whole wave down to full scale
    when any sample passes it. `subtype` is for WAV. MP3 knows nine sample rates; others (RVC's 40 kHz) are resampled to
    the next higher one. OGG is Vorbis, which takes every rate. Raises BrokenAudio for NaN and infinite samples.
    """
    wave = _within_full_scale(wave, overshoot)
    buffer = io.BytesIO()
    if format == "wav":
        _write_whole_wav(buffer, wave, sample_rate, subtype)
        return buffer.getvalue()
    if (rate := rate_for(format, sample_rate)) != sample_rate:
        wave, sample_rate = np.clip(resample(wave, sample_rate, rate), -1.0, 1.0), rate
    rows = np.atleast_2d(wave).T
    with soundfile.SoundFile(
        buffer, "w", sample_rate, rows.shape[1], format=format.upper(), subtype=SUBTYPES[format]
    ) as file:
        # libsndfile's Vorbis encoder takes stack space in proportion to one write, and crashes on minutes at once
        for start in range(0, len(rows), _BLOCK):
            file.write(rows[start : start + _BLOCK])
    return buffer.getvalue()


def rate_for(format: OutputFormat, sample_rate: int) -> int:
    """The rate at which `format` can hold sound of `sample_rate` Hz: the same, or for MP3 the next higher it knows."""
    if format != "mp3" or sample_rate in _MP3_RATES:
        return sample_rate
    return next((known for known in _MP3_RATES if known > sample_rate), _MP3_RATES[-1])


def write_encoded(
    path: Path, wave: Wave, sample_rate: int, format: OutputFormat, *, overshoot: Overshoot = "clip"
) -> None:
    """`encode` to `path`, which appears whole or not at all. Raises StorageFull when the disk is full."""
    data = encode(wave, sample_rate, format, overshoot=overshoot)
    with atomic_file(path) as file:
        file.write(data)


def write_wav(path: Path, wave: Wave, sample_rate: int, subtype: Subtype = "PCM_16") -> None:
    """`wave` float32 `[T]` or `[C, T]` as a WAV at `path`, which appears whole or not at all.

    PCM_16 clips to -1…1; FLOAT keeps every value. Raises BrokenAudio for NaN, StorageFull when the disk is full.
    """
    wave = _within_full_scale(wave, "clip") if subtype == "PCM_16" else _finite(wave)
    with atomic_file(path) as file:
        _write_whole_wav(file, wave, sample_rate, subtype)


def check_wav_size(size: int) -> None:
    """Raises InvalidInput when `size` bytes of samples are more than a WAV's lengths of 32 bits can say."""
    if size > _WAV_LIMIT:
        raise InvalidInput(
            f"The result has {size / 2**30:.1f} GiB of samples and a WAV file holds at most 4 GiB. "
            "Ask for flac, or for a lower sample rate.",
            field="format",
        )


class WavWriter:
    """A WAV file written block by block; `close` completes the header. Given an open binary file that can seek."""

    def __init__(self, file: IO[bytes], sample_rate: int, *, channels: int = 1, subtype: Subtype = "PCM_16") -> None:
        self._file, self._rate, self._channels, self._subtype = file, sample_rate, channels, subtype
        self.samples = 0
        self._file.write(self._header())

    def write(self, wave: Wave) -> None:
        """Append `[n]` or `[channels, n]`; PCM_16 is rounded, and clipped at full scale.

        Raises InvalidInput beyond what a WAV can hold, see `check_wav_size`.
        """
        rows = np.atleast_2d(wave)
        self.samples += rows.shape[1]
        check_wav_size(self.samples * self._frame_bytes())
        if self._subtype == "PCM_16":
            # rint and 2^15 undo exactly what reading PCM16 does: a file read and written again does not change
            data = np.clip(np.rint(rows.T * 32768.0), -32768, 32767).astype("<i2")
        else:
            data = rows.T.astype("<f4")
        self._file.write(data.tobytes())

    def close(self) -> None:
        """Write the true lengths into the header. The file itself stays open."""
        if self.samples * self._frame_bytes() % 2:
            self._file.write(b"\0")
        self._file.seek(0)
        self._file.write(self._header())

    def __enter__(self) -> WavWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.close()

    def _frame_bytes(self) -> int:
        return self._channels * (2 if self._subtype == "PCM_16" else 4)

    def _header(self) -> bytes:
        frame, size = self._frame_bytes(), self.samples * self._frame_bytes()
        if self._subtype == "PCM_16":
            body = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, self._channels, self._rate, self._rate * frame, frame, 16)
        else:
            # formats other than PCM carry an extension size and a fact chunk
            rate = self._rate
            body = struct.pack("<4sIHHIIHHH", b"fmt ", 18, 3, self._channels, rate, rate * frame, frame, 32, 0)
            body += struct.pack("<4sII", b"fact", 4, self.samples)
        body += struct.pack("<4sI", b"data", size)
        return struct.pack("<4sI4s", b"RIFF", 4 + len(body) + size + size % 2, b"WAVE") + body


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that becomes `path` when the block ends well, and vanishes when it does not.

    It is written under a hidden name in the same folder, flushed to the disk, then renamed; the folder is flushed too.
    A killed process may leave the hidden file (`.….part`), never a partial `path`. A full disk raises StorageFull.
    """
    half = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}{_SUFFIX}")
    try:
        try:
            with half.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            half.replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                half.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFull(f"There is no space left to write {path.name}: {error.strerror}.") from error
        raise


def _write_whole_wav(file: IO[bytes], wave: Wave, sample_rate: int, subtype: Subtype) -> None:
    rows = np.atleast_2d(wave)
    with WavWriter(file, sample_rate, channels=rows.shape[0], subtype=subtype) as writer:
        for start in range(0, rows.shape[1], _BLOCK):
            writer.write(rows[:, start : start + _BLOCK])


def _within_full_scale(wave: Wave, overshoot: Overshoot) -> Wave:
    wave = _finite(wave)
    peak = float(np.abs(wave).max(initial=0.0))
    if peak <= 1.0:
        return wave
    if overshoot == "scale":
        return np.asarray(wave / np.float32(peak), dtype=np.float32)
    return np.clip(wave, -1.0, 1.0)


def _finite(wave: Wave) -> Wave:
    wave = np.asarray(wave, dtype=np.float32)
    if not np.isfinite(wave).all():
        raise BrokenAudio("The wave holds samples that are not numbers (NaN or infinite) and cannot be written.")
    return wave
