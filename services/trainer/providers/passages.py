"""Which few seconds of a dataset are sent to a service that wants no more? For a process of its own: it loads numpy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

QUIET_SECONDS = 2.0
FRAME_SECONDS = 0.02
SHORTEST = 3.0


def sent(wav: Path, longest: float, sample_rate: int) -> bytes:
    """A WAV file, mono PCM16 at `sample_rate` Hz, of the first `longest` seconds, cut where it is quiet.

    Raises BrokenAudio, UnsupportedAudio.
    """
    import numpy as np

    from libs.audio.decode import decode
    from libs.audio.encode import encode
    from libs.audio.resample import resample

    sound = decode(wav, limit_seconds=600.0)
    wave = resample(sound.wave, sound.sample_rate, sample_rate)
    most = int(longest * sample_rate)
    if len(wave) > most:
        frame = int(FRAME_SECONDS * sample_rate)
        begin = max(most - int(QUIET_SECONDS * sample_rate), 0)
        frames = wave[begin:most][: (most - begin) // frame * frame].reshape(-1, frame)
        quietest = int(np.argmin(np.square(frames).sum(axis=1)))
        wave = wave[: begin + (quietest + 1) * frame]
    return encode(wave, sample_rate, "wav")


def best(seconds: Sequence[float], longest: float) -> int:
    """Which recording to send, by its length alone: the longest that fits whole, otherwise the shortest that does not.

    A whole recording begins and ends where its speaker did. Raises ValueError when there is none.
    """
    fitting = [(length, -place) for place, length in enumerate(seconds) if SHORTEST <= length <= longest]
    if fitting:
        return -max(fitting)[1]
    return min(range(len(seconds)), key=lambda place: (seconds[place] < SHORTEST, seconds[place]))


def loudness(sound: bytes) -> tuple[float, float]:
    """Seconds and peak (0-1) of a sound file that a service sent. Raises BrokenAudio, UnsupportedAudio."""
    import tempfile

    import numpy as np

    from libs.audio.decode import decode

    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        file.write(sound)
        file.flush()
        heard = decode(Path(file.name), limit_seconds=600.0)
    return len(heard.wave) / heard.sample_rate, float(np.abs(heard.wave).max()) if len(heard.wave) else 0.0
