"""How did a conversion or a text end, and how long did it take? Into the metrics, whichever way it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from prometheus_client import Counter, Histogram

from libs.common import metrics
from libs.common.errors import Busy, Cancelled, InvalidInput, NotFound
from services.inference.conversion import Converted


@dataclass(frozen=True)
class Kind:
    """The metrics of one kind of sound that is made."""

    total: Counter
    seconds: Histogram
    sound: Counter
    real_time_factor: Histogram


CONVERSION = Kind(metrics.CONVERSIONS, metrics.CONVERSION_SECONDS, metrics.CONVERSION_SOUND, metrics.CONVERSION_RTF)
SPEECH = Kind(metrics.TEXTS, metrics.SPEECH_SECONDS, metrics.SPEECH_SOUND, metrics.SPEECH_RTF)


class Ended:
    """What became of one of them; cancelled unless somebody says otherwise."""

    def __init__(self) -> None:
        self.outcome = "cancelled"
        self.made: tuple[float, float] | None = None

    def done(self, seconds: float, compute_seconds: float) -> None:
        """`seconds` of sound, made in `compute_seconds`."""
        self.outcome = "done"
        self.made = (seconds, compute_seconds)

    def failed(self, error: BaseException) -> None:
        if isinstance(error, Busy):
            self.outcome = "busy"
        elif isinstance(error, Cancelled | asyncio.CancelledError | GeneratorExit):
            self.outcome = "cancelled"
        else:
            self.outcome = "refused" if isinstance(error, InvalidInput | NotFound) else "failed"

    def future(self, result: asyncio.Future[Converted]) -> None:
        """As `result` says, if it is there."""
        if not result.done() or result.cancelled():
            return
        if (error := result.exception()) is not None:
            self.failed(error)
        else:
            converted = result.result()
            self.done(converted.seconds, converted.compute_seconds)


@contextmanager
def counted(way: str, kind: Kind = CONVERSION) -> Iterator[Ended]:
    """Counts one conversion or text, from here to the end of the block; `way` is request or job."""
    ended = Ended()
    started = time.perf_counter()
    try:
        yield ended
    except BaseException as error:
        if ended.made is None:
            ended.failed(error)
        raise
    finally:
        kind.total.labels(way, ended.outcome).inc()
        if ended.made is not None:
            seconds, compute_seconds = ended.made
            kind.seconds.labels(way).observe(time.perf_counter() - started)
            kind.sound.labels(way).inc(seconds)
            if seconds > 0:
                kind.real_time_factor.labels(way).observe(compute_seconds / seconds)
