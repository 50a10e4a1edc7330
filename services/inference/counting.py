"""How did a conversion end, and how long did it take? Into the metrics, whichever way it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from libs.common import metrics
from libs.common.errors import Busy, Cancelled, InvalidInput, NotFound
from services.inference.conversion import Converted


class Ended:
    """What became of one conversion; cancelled unless somebody says otherwise."""

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
def counted(way: str) -> Iterator[Ended]:
    """Counts one conversion, from here to the end of the block; `way` is request or job."""
    ended = Ended()
    started = time.perf_counter()
    try:
        yield ended
    except BaseException as error:
        if ended.made is None:
            ended.failed(error)
        raise
    finally:
        metrics.CONVERSIONS.labels(way, ended.outcome).inc()
        if ended.made is not None:
            seconds, compute_seconds = ended.made
            metrics.CONVERSION_SECONDS.labels(way).observe(time.perf_counter() - started)
            metrics.CONVERSION_SOUND.labels(way).inc(seconds)
            if seconds > 0:
                metrics.CONVERSION_RTF.labels(way).observe(compute_seconds / seconds)
