"""How is a stream of PCM kept in step with the machine? Cut into blocks, a bounded queue, the oldest dropped.

bytes of any size ─▶ blocks ─▶ queue (at most LIVE_QUEUE) ─▶ one thread ─▶ PCM
                                 full: the oldest goes, so that what is heard is never older than the queue
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.common import metrics
from libs.common.errors import InvalidInput
from libs.common.invalid import first_at_fault
from libs.voice.realtime import RealtimeConverter, RealtimeSettings

Float32 = NDArray[np.float32]
Format = Literal["s16le", "f32le"]
DTYPES: dict[Format, str] = {"s16le": "<i2", "f32le": "<f4"}
FULL_SCALE = 32768.0
REMEMBERED = 200
"""Blocks whose times are told in `stats`."""


class LiveStart(BaseModel):
    """The first message: a voice, the form of the PCM (mono), and what can be turned."""

    model_config = ConfigDict(extra="forbid", strict=False)

    type: Literal["start"] = "start"
    voice: str
    sample_rate: int = Field(description="Hz, a multiple of 100")
    format: Format = "s16le"
    block_seconds: float = 0.25
    crossfade_seconds: float = 0.05
    extra_seconds: float = 2.5
    pitch_shift: float = 0.0
    formant_shift: float = 0.0
    index_rate: float = 0.0
    rms_mix_rate: float | None = None
    threshold_db: float = -60.0
    f0_method: str = "auto"
    speaker_id: int = 0

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> LiveStart:
        """Raises InvalidInput that names the first field at fault."""
        try:
            return cls.model_validate(message)
        except ValidationError as error:
            raise first_at_fault(error, "message") from None

    def settings(self) -> RealtimeSettings:
        """The engine's settings; raises InvalidInput naming the field and its limits."""
        own = self.model_dump(exclude={"type", "voice", "sample_rate", "format"})
        return RealtimeSettings(input_rate=self.sample_rate, **own)


def to_wave(data: bytes, form: Format) -> Float32:
    """PCM → float32 `[T]` in -1…1."""
    samples = np.frombuffer(data, dtype=DTYPES[form]).astype(np.float32)
    return samples / np.float32(FULL_SCALE) if form == "s16le" else samples


def to_pcm(wave: Float32, form: Format) -> bytes:
    """float32 `[T]` in -1…1 → PCM."""
    if form == "f32le":
        return wave.astype("<f4").tobytes()
    return bytes(np.clip(np.rint(wave * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes())


class LiveSession:
    """One stream through one voice. Everything but the computing happens on the event loop."""

    def __init__(self, converter: RealtimeConverter, form: Format, queue_seconds: float) -> None:
        self.converter = converter
        self._form = form
        self._block_bytes = converter.block_samples * np.dtype(DTYPES[form]).itemsize
        self.block_seconds = converter.block_samples / converter.settings.input_rate
        self._most = max(1, round(queue_seconds / self.block_seconds))
        self._partial = bytearray()
        self._queue: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._is_ended = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live")
        self._times: deque[float] = deque(maxlen=REMEMBERED)
        self.blocks = 0
        self.dropped = 0
        self.heard_at = time.monotonic()

    def feed(self, data: bytes) -> int:
        """Takes PCM of any length; returns how many blocks had to be dropped for it."""
        self.heard_at = time.monotonic()
        self._partial += data
        dropped = 0
        while len(self._partial) >= self._block_bytes:
            block = bytes(self._partial[: self._block_bytes])
            del self._partial[: self._block_bytes]
            if len(self._queue) >= self._most:
                self._queue.popleft()
                dropped += 1
            self._queue.append(block)
        if self._queue:
            self._arrived.set()
        self.dropped += dropped
        metrics.LIVE_DROPPED.inc(dropped)
        return dropped

    def end(self) -> None:
        """No more will come: what is left over becomes the last block, filled up with silence."""
        if self._partial:
            self.feed(bytes(self._block_bytes - len(self._partial)))
        self._is_ended = True
        self._arrived.set()

    async def next_block(self) -> bytes | None:
        """The oldest block that waits, None after the last."""
        while not self._queue:
            if self._is_ended:
                return None
            self._arrived.clear()
            await self._arrived.wait()
        return self._queue.popleft()

    async def convert(self, block: bytes) -> bytes:
        """A block of PCM in the voice, computed on the session's own thread."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._compute, block)

    async def warm_up(self) -> None:
        """Computes once for nothing, so that the first block does not wait for what loads at first use."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self.converter.warm_up)

    async def change(self, changes: Mapping[str, Any]) -> None:
        """Turns settings between two blocks; raises InvalidInput, and then nothing is changed."""
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._thread, lambda: self.converter.change(**changes))
        except TypeError as error:
            raise InvalidInput(f"the settings cannot be used: {error}", field="settings") from error

    def close(self) -> None:
        """Lets the thread go; a block that it computes is finished for nobody."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def ready(self) -> dict[str, Any]:
        """What a client has to know before it sends."""
        converter = self.converter
        return {
            "type": "ready",
            "format": self._form,
            "channels": 1,
            "input_rate": converter.settings.input_rate,
            "block_samples": converter.block_samples,
            "block_seconds": self.block_seconds,
            "output_rate": converter.output_rate,
            "output_samples": converter.output_samples,
            "latency_seconds": round(converter.latency_seconds, 4),
            "queue_blocks": self._most,
        }

    def stats(self) -> dict[str, Any]:
        """Milliseconds of computing per block (of the last ones), blocks in all, dropped, and waiting."""
        times = np.array(self._times or [0.0]) * 1000
        return {
            "type": "stats",
            "blocks": self.blocks,
            "dropped_blocks": self.dropped,
            "waiting_blocks": len(self._queue),
            "block_ms": {
                "mean": round(float(times.mean()), 2),
                "p95": round(float(np.percentile(times, 95)), 2),
                "max": round(float(times.max()), 2),
            },
            "load": round(float(times.mean()) / 1000 / self.block_seconds, 3),
        }

    def _compute(self, block: bytes) -> bytes:
        started = time.perf_counter()
        pcm = to_pcm(self.converter.process(to_wave(block, self._form)), self._form)
        took = time.perf_counter() - started
        self._times.append(took)
        metrics.CONVERSION_RTF.labels("live").observe(took / self.block_seconds)
        metrics.CONVERSION_SOUND.labels("live").inc(self.block_seconds)
        self.blocks += 1
        return pcm
