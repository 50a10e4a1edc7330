"""In which rate and file does what was said go out?"""

from __future__ import annotations

from libs.audio.encode import encode
from libs.audio.growing import GrowingSound
from libs.audio.resample import resample
from libs.voice.xtts.guards import RATE, Wave
from services.inference.schemas import SpeechFormat
from services.inference.speech import Speech

AT_24K = (SpeechFormat.opus, SpeechFormat.pcm)
"""Formats that are promised at one rate, whatever the voice's."""


def rate_of(speech: Speech, format: SpeechFormat) -> int:
    """Hz of a speech in this format."""
    return RATE if format in AT_24K else speech.sample_rate


def at_rate(wave: Wave, speech: Speech, format: SpeechFormat) -> Wave:
    """`wave` `[T]` of the speech at the rate of the format."""
    rate = rate_of(speech, format)
    return wave if rate == speech.sample_rate else resample(wave, speech.sample_rate, rate)


def whole_file(wave: Wave, speech: Speech, format: SpeechFormat) -> bytes:
    """All of a speech, float32 `[T]` at its own rate, as the bytes of one file."""
    if format in AT_24K:
        sound = GrowingSound(RATE, format.value)
        return sound.write(at_rate(wave, speech, format)) + sound.finish()
    return encode(wave, speech.sample_rate, format.value)  # type: ignore[arg-type]  # the others are its formats
