"""How do chunks become one sound without a seam? Phases aligned within 10 ms, then a cross-fade of 20 ms.

SOLA (Roucos & Wilgus 1985), without its change of tempo: a chunk is moved as a whole by at most 10 ms and begins and
ends where it should, so the shifts do not add up and the length stays exact.

    rendered  |s|======== span ========|s|-fade-|        s: 10 ms to search in
    previous                      … ====|-fade-|         its continuation, kept until the next chunk comes
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

SEARCH_FRAMES = 1
FADE_FRAMES = 2


class Joiner:
    """Takes rendered spans in order and gives them joined. `hop`: samples of one frame (10 ms)."""

    def __init__(self, hop: int) -> None:
        self.search, self.fade = SEARCH_FRAMES * hop, FADE_FRAMES * hop
        self._tail: Float32 | None = None

    def join(self, rendered: Float32, length: int) -> Float32:
        """Sound `[length]`. `rendered`: `search` samples before the span, the span, `search + fade` after."""
        offset = self.search if self._tail is None else self._best_offset(rendered, self._tail)
        piece = rendered[offset : offset + length].copy()
        if self._tail is not None:
            fade = min(len(self._tail), length)
            share = (0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / fade)).astype(np.float32)
            piece[:fade] = piece[:fade] * share + self._tail[:fade] * (1 - share)
        self._tail = rendered[offset + length : offset + length + self.fade].copy()
        return piece

    def _best_offset(self, rendered: Float32, tail: Float32) -> int:
        """Where in the first `2 * search` samples the chunk looks most like the end of the one before."""
        near = rendered[: 2 * self.search + len(tail)].astype(np.float64)
        if len(near) < 2 * self.search + len(tail) or not np.any(tail):
            return self.search
        likeness = np.correlate(near, tail.astype(np.float64), mode="valid")
        energy = np.convolve(near**2, np.ones(len(tail)), mode="valid")
        return int(np.argmax(likeness / np.sqrt(np.maximum(energy, 1e-12))))
