"""How are decoded recordings converted with one voice? A plain blocking function."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from libs.audio.decode import Sound
from libs.audio.encode import encode
from libs.common import metrics
from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from libs.voice.chain import Order, Outcome, convert_together
from services.inference.schemas import ConversionRequest
from services.inference.voices import LoadedVoice

log = get_logger("conversion")


@dataclass(frozen=True)
class Piece:
    """One caller's recording and what is wanted of it."""

    sound: Sound
    wanted: ConversionRequest
    should_stop: Callable[[], bool]


@dataclass(frozen=True)
class Converted:
    """The sound, encoded, and what it took: the time that it was in hand, with others or alone."""

    content: bytes
    sample_rate: int
    seconds: float
    compute_seconds: float
    version: str
    sha256: str


def convert_pieces(
    voice: LoadedVoice,
    pieces: Sequence[Piece],
    tell: Callable[[int, Converted | Exception], None],
    *,
    most_seconds: float,
) -> None:
    """Converts and encodes `pieces` together; each is told, by its place, as soon as it is over.

    One's failure is its own: RecordingTooShort, InvalidInput, Cancelled, or whatever happens to it when it is alone.
    """
    started = time.perf_counter()
    places: list[int] = []
    orders: list[Order] = []
    for place, piece in enumerate(pieces):
        try:
            settings = piece.wanted.conversion()
        except PlatformError as error:
            tell(place, error)
            continue
        places.append(place)
        wave, rate = piece.sound.wave, piece.sound.sample_rate
        orders.append(Order(wave, rate, settings, piece.wanted.output_rate, piece.should_stop))

    def finish(number: int, outcome: Outcome) -> None:
        place = places[number]
        if isinstance(outcome, Exception):
            tell(place, outcome)
            return
        wave, rate = outcome
        try:
            content = encode(wave, rate, pieces[place].wanted.format.value)
        except Exception as error:
            tell(place, error)
            return
        took = time.perf_counter() - started
        tell(place, Converted(content, rate, len(wave) / rate, took, voice.version, voice.sha256))

    convert_together(voice.converter, orders, finish, most_seconds=most_seconds, on_retry=_retried)


def _retried(error: Exception) -> None:
    metrics.CONVERSION_BATCH_RETRIES.inc()
    log.warning("conversion.batch_failed", error=f"{type(error).__name__}: {error}"[:500])
