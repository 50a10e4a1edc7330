"""Does a voice that speaks make a sound? A few words in its language, judged the same before and after it is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from libs.common.errors import ModelValidationFailed
from libs.voice.xtts.guards import RATE, Wave
from libs.voice.xtts.process import Order
from libs.voice.xtts.saying import Speaks
from libs.voice.xtts.words import words_in

LONGEST_SECONDS = 5.5
"""Enough to hear whether there is sound; a network that never stops is not waited for."""
SHORTEST_SECONDS = 0.2
AUDIBLE = 1e-4


def heard(wave: Wave) -> dict[str, float]:
    """`seconds`, `peak` (0-1) and `level_db` (of full scale) of a test sound, float32 `[T]` at 24 kHz.

    Raises ModelValidationFailed for one that is too short or silent, and for what is no number.
    """
    seconds = len(wave) / RATE
    if not np.isfinite(wave).all():
        raise ModelValidationFailed("the voice made values that are no numbers")
    peak = float(np.abs(wave).max()) if len(wave) else 0.0
    if seconds < SHORTEST_SECONDS or peak < AUDIBLE:
        raise ModelValidationFailed(f"the voice made {seconds:.2f} s with a peak of {peak:.5f}: nothing to hear")
    level = 20 * float(np.log10(max(float(np.sqrt(np.mean(np.square(wave)))), 1e-9)))
    return {"seconds": round(seconds, 3), "peak": round(peak, 4), "level_db": round(level, 2)}


async def try_published(process: Speaks, folder: Path, weights: str, card: dict[str, Any]) -> dict[str, float]:
    """Has the version in `folder` say a few words through the process that speaks for everybody: see `heard`.

    `weights`: the name of its checkpoint. Raises what `heard` and `process` raise, and InvalidInput for a card
    without a language of XTTS.
    """
    language = str(card.get("language", ""))
    order = Order(
        key=f"{folder}:{card['weights']['sha256']}",
        folder=str(folder),
        weights=weights,
        text=words_in(language),
        language=language,
        speed=1.0,
        temperature=0.65,
        seed=0,
        seconds=LONGEST_SECONDS,
    )
    return heard((await process.say(order)).wave)
