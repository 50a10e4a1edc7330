"""How does a text become speech that can be relied on? Piece by piece; what fails is said again with another seed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from libs.common.errors import SynthesisFailed
from libs.voice.xtts import guards
from libs.voice.xtts.guards import RATE, Wave
from libs.voice.xtts.process import Order, Sound, TooLong
from libs.voice.xtts.text import pieces

ATTEMPTS = 3


class Speaks(Protocol):
    """Whoever says one piece: `SpeakingProcess`."""

    async def say(self, order: Order) -> Sound:
        """The sound of one piece."""
        ...


@dataclass(frozen=True)
class Wish:
    """Which voice speaks and how. `key`, `folder`, `weights`: its version; `speed` 0.25-4; `temperature` 0.05-1.5.

    `reference`: a WAV of whoever is imitated; without one it is the version's own speaker.
    """

    key: str
    folder: str
    weights: str
    language: str
    speed: float = 1.0
    temperature: float = 0.65
    seed: int = 0
    reference: str = ""


async def say(
    process: Speaks,
    parts: Sequence[str],
    wish: Wish,
    *,
    attempts: int = ATTEMPTS,
    retried: Callable[[str], None] = lambda fault: None,
) -> AsyncGenerator[Wave, None]:
    """The sounds of `parts` in order, float32 `[T]` at 24 kHz, each with the pause that follows it.

    Every sound has passed the guards. `retried` hears why one was thrown away. Raises SynthesisFailed when `attempts`
    seeds gave none, and what `process` raises.
    """
    for number, part in enumerate(parts):
        wave = await _part(process, part, wish, str(number), attempts, retried)
        pause = 0.0 if number == len(parts) - 1 else guards.pause_after(part) / wish.speed
        yield np.concatenate([wave, np.zeros(round(pause * RATE), dtype=np.float32)])


async def _part(
    process: Speaks, part: str, wish: Wish, place: str, attempts: int, retried: Callable[[str], None]
) -> Wave:
    if not any(letter.isalnum() for letter in part):
        return np.zeros(0, dtype=np.float32)  # dots and dashes: their pause is all there is to hear
    why = ""
    for attempt in range(attempts):
        try:
            made = await process.say(_order(part, wish, f"{place}:{attempt}"))
        except TooLong:
            halves = pieces(part, max(1, len(part) // 2))
            if len(halves) < 2:
                raise SynthesisFailed(f"{part[:40]!r} has more tokens than the voice takes", field="text") from None
            both = [
                await _part(process, half, wish, f"{place}.{n}", attempts, retried) for n, half in enumerate(halves)
            ]
            return np.concatenate(both)
        wave = guards.without_edges(made.wave) if np.isfinite(made.wave).all() else made.wave
        shorter = guards.without_babble(wave, part, wish.language, wish.speed)
        # what was cut off for babbling needs no end of its own
        has_ended = made.has_ended or len(shorter) < len(wave)
        fault = guards.fault(shorter, part, wish.language, wish.speed, has_ended=has_ended)
        if fault is None:
            return guards.without_edges(shorter)
        why = fault
        retried(fault)
    raise SynthesisFailed(f"{part.strip()[:80]!r} could not be said in {attempts} attempts; in the last one {why}")


def _order(part: str, wish: Wish, place: str) -> Order:
    chance = hashlib.sha256(f"{wish.seed}:{place}".encode()).digest()
    return Order(
        key=wish.key,
        folder=wish.folder,
        weights=wish.weights,
        text=part.strip(),
        language=wish.language,
        speed=wish.speed,
        temperature=wish.temperature,
        seed=int.from_bytes(chance[:4], "big") & 0x7FFFFFFF,
        seconds=guards.longest_seconds(part, wish.language),
        reference=wish.reference,
    )
