"""Which sound files do tests use? Tones, espeak-ng speech, and the same in every format that people send.

Speech is made once per machine and kept in a folder of the temporary directory; `make_…` and `encode_as` return the
path that they wrote.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import tempfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np
import numpy.typing as npt
import soundfile

Wave = npt.NDArray[np.float32]
Format = Literal["wav", "mp3", "m4a", "mp4", "mov", "ogg", "opus", "webm", "mkv", "flac"]

FORMATS: tuple[Format, ...] = ("wav", "mp3", "m4a", "mp4", "mov", "ogg", "opus", "webm", "mkv", "flac")

VOICES: tuple[str, ...] = (
    *("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp"),
    *("en-us+f1", "en-us+f2", "en-us+f3", "en-us+f4", "en-us+m1", "en-us+m2", "en-us+m3", "en-us+m5", "en-us+m7"),
)
"""espeak-ng voices; `+f…` are female, `+m…` male variants."""

SENTENCES: tuple[str, ...] = (
    "The north wind and the sun were disputing which was the stronger, when a traveller came along.",
    "She had your dark suit in greasy wash water all year.",
    "A quick brown fox jumps over the lazy dog, and nobody in the yard seems to mind.",
    "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow.",
    "Please call Stella, and ask her to bring these things with her from the store.",
    "Six spoons of fresh snow peas, five thick slabs of blue cheese, and maybe a snack for her brother Bob.",
    "The boy was there when the sun rose, and a rod is used to catch pink salmon.",
    "Kick the ball straight and follow through; help the woman get back to her feet.",
    "A pot of tea helps to pass the evening, while smoky fires lack flame and heat.",
    "The juice of lemons makes fine punch, but the soft cushion broke the man's fall.",
    "We were away a year ago, and everyone we knew remained very near to the harbour.",
    "Nine men were hired to dig the ruins, measuring usual treasure with great pleasure.",
)

_CODECS: dict[str, tuple[str, str, int | None]] = {
    "wav": ("wav", "pcm_s16le", None),
    "mp3": ("mp3", "libmp3lame", 128_000),
    "m4a": ("ipod", "aac", 128_000),
    "mp4": ("mp4", "aac", 128_000),
    "mov": ("mov", "aac", 128_000),
    "ogg": ("ogg", "vorbis", None),
    "opus": ("ogg", "libopus", 64_000),
    "webm": ("webm", "libopus", 64_000),
    "mkv": ("matroska", "flac", None),
    "flac": ("flac", "flac", None),
}


def speech(seconds: float, voice: str = "en-us", *, seed: int = 0, rate: int = 22_050) -> Wave:
    """Float32 `[seconds * rate]` of espeak-ng speech; `seed` chooses where in `SENTENCES` it begins."""
    parts: list[Wave] = []
    length = round(seconds * rate)
    for index in itertools.count(seed):
        parts.append(_sentence(SENTENCES[index % len(SENTENCES)], voice))
        if sum(len(part) for part in parts) * rate >= length * 22_050 + rate:
            break
    wave = np.concatenate(parts)
    if rate != 22_050:
        import soxr

        wave = np.asarray(soxr.resample(wave, 22_050, rate), dtype=np.float32)
    return wave[:length]


def make_speech(seconds: float, voice: str, path: Path, *, seed: int = 0, rate: int = 22_050) -> Path:
    """Speech as a file; the format follows the name's suffix."""
    return encode_as(_suffix(path), speech(seconds, voice, seed=seed, rate=rate), rate, path)


def tone(seconds: float, hz: float = 220.0, *, rate: int = 22_050, level: float = 0.3) -> Wave:
    """Float32 `[seconds * rate]` of a sine."""
    time = np.arange(round(seconds * rate)) / rate
    return np.asarray(level * np.sin(2 * np.pi * hz * time), dtype=np.float32)


def make_tone(
    seconds: float, path: Path, *, hz: float = 220.0, rate: int = 22_050, level: float = 0.3, channels: int = 1
) -> Path:
    """A sine as a file; the format follows the name's suffix."""
    wave = tone(seconds, hz, rate=rate, level=level)
    return encode_as(_suffix(path), wave if channels == 1 else np.tile(wave, (channels, 1)), rate, path)


def make_recordings(
    folder: Path, count: int, seconds: float, *, voice: str = "en-us", suffix: str = ".wav"
) -> list[Path]:
    """`count` files of different sentences of one voice."""
    folder.mkdir(parents=True, exist_ok=True)
    return [make_speech(seconds, voice, folder / f"recording-{n:03}{suffix}", seed=n) for n in range(count)]


def encode_as(
    format: Format,
    wave: Wave,
    rate: int,
    path: Path,
    *,
    codec: str | None = None,
    bit_rate: int | None = None,
    layout: str | None = None,
    video: bool = False,
    cover: bool = False,
    header: bool = True,
    options: dict[str, str] | None = None,
) -> Path:
    """`wave` float32 `[T]` or `[C, T]` in any of `FORMATS`, through FFmpeg's encoders.

    `video` adds a picture track, `cover` an embedded cover (mp3, m4a); `header=False` writes as to a pipe: no length
    in the header, as browsers and streaming recorders do.
    """
    container, default_codec, default_bits = _CODECS[format]
    samples = np.atleast_2d(np.asarray(wave, dtype=np.float32))
    channels = samples.shape[0]
    layout = layout or {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    codec = codec or default_codec
    if codec == "libopus" and rate not in (8000, 12000, 16000, 24000, 48000):
        import soxr

        samples = np.asarray(soxr.resample(samples.T, rate, 48_000).T, dtype=np.float32)
        rate = 48_000
    path.parent.mkdir(parents=True, exist_ok=True)
    if codec == "vorbis":
        return _write_vorbis(path, samples, rate)
    if cover and container == "ipod":
        container, options = "mp4", {"brand": "M4A "}
    with path.open("wb") as file:
        target = file if header else _Pipe(file)
        with av.open(target, "w", format=container, options=options or {}) as output:
            stream = output.add_stream(codec, rate=rate)
            assert isinstance(stream, av.AudioStream)
            stream.layout = layout
            bits = bit_rate or (default_bits if codec == default_codec else None)
            if bits:
                stream.bit_rate = bits
            pictures = _add_pictures(output, "mjpeg" if cover else "mpeg4") if video or cover else None
            stream.codec_context.open()
            if pictures is not None:
                for picture in range(1 if cover else 5):
                    frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * picture, np.uint8), "rgb24")
                    frame = frame.reformat(format=pictures.pix_fmt)
                    frame.pts = picture
                    for packet in pictures.encode(frame):
                        output.mux(packet)
                for packet in pictures.encode(None):
                    output.mux(packet)
            _encode_samples(output, stream, samples, rate, layout)
    return path


def write_float_wav(path: Path, wave: Wave, rate: int = 22_050) -> Path:
    """A 32-bit float WAV with the samples exactly as given, NaN and values beyond full scale included."""
    soundfile.write(path, np.atleast_2d(wave).T, rate, subtype="FLOAT")
    return path


def _write_vorbis(path: Path, samples: Wave, rate: int) -> Path:
    with soundfile.SoundFile(path, "w", rate, samples.shape[0], format="OGG", subtype="VORBIS") as file:
        # libsndfile's Vorbis encoder needs stack space in proportion to one write
        for start in range(0, samples.shape[1], 16_384):
            file.write(samples[:, start : start + 16_384].T)
    return path


class _Pipe:
    """A file that cannot be rewound, as a socket or a pipe."""

    def __init__(self, file: object) -> None:
        self.write = file.write  # type: ignore[attr-defined]


def _add_pictures(output: av.container.OutputContainer, codec: str) -> av.VideoStream:
    pictures = output.add_stream(codec, rate=5)
    assert isinstance(pictures, av.VideoStream)
    pictures.width, pictures.height = 32, 32
    pictures.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    if codec == "mjpeg":
        pictures.disposition = av.stream.Disposition.attached_pic
    pictures.codec_context.time_base = Fraction(1, 5)
    return pictures


def _encode_samples(
    output: av.container.OutputContainer, stream: av.AudioStream, samples: Wave, rate: int, layout: str
) -> None:
    context = stream.codec_context
    resampler = av.AudioResampler(format=context.format, layout=layout, rate=rate, frame_size=context.frame_size or 0)
    step = 16_384
    position = 0
    for start in range(0, samples.shape[1], step):
        part = samples[:, start : start + step]
        # interleaved: PyAV miscounts the planes of eight channels
        interleaved = np.ascontiguousarray(part.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate
        frame.pts = position
        frame.time_base = Fraction(1, rate)
        position += part.shape[1]
        for piece in resampler.resample(frame):
            output.mux(stream.encode(piece))
    for piece in resampler.resample(None):
        output.mux(stream.encode(piece))
    output.mux(stream.encode(None))


def _sentence(text: str, voice: str) -> Wave:
    folder = Path(tempfile.gettempdir()) / f"voicewright-test-speech-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    key = hashlib.sha256(f"{voice}|{text}".encode()).hexdigest()[:24]
    path = folder / f"{key}.wav"
    if not path.exists():
        half = folder / f".{key}.{os.getpid()}.wav"
        command: Sequence[str] = ("espeak-ng", "-v", voice, "-s", "150", "-w", str(half), text)
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        half.replace(path)
    wave, rate = soundfile.read(path, dtype="float32")
    assert rate == 22_050, "espeak-ng speaks at 22050 Hz"
    return np.asarray(wave, dtype=np.float32)


def _suffix(path: Path) -> Format:
    name = path.suffix.lstrip(".").lower()
    for known in FORMATS:
        if known == name:
            return known
    raise ValueError(f"{path.name}: the suffix is none of {', '.join(FORMATS)}")
