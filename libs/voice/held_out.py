"""How good is the voice on speech that it does not learn from, and which state was the best?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from libs.voice.batch import stream_seed
from libs.voice.batching import collate, held_out_batches
from libs.voice.dataset import Piece
from libs.voice.faults import BadStep
from libs.voice.memory import give_back, is_out_of_memory
from libs.voice.recipe import Recipe

MOST_CROPS = 16
WHOLE = 1.1
"""How much higher than the lowest one the loss of a voice may be that judges have polished."""


class HeldOut:
    """The crops that are judged: always the same ones, with the same noise."""

    def __init__(self, pieces: Sequence[Piece], batch_size: int, seed: int) -> None:
        self.pieces = pieces
        self.seed = seed
        self._size = batch_size

    def __bool__(self) -> bool:
        return bool(self.pieces)

    def losses(self, recipe: Recipe, device: torch.device, step: int, tell: Callable[[], None]) -> dict[str, float]:
        """Mean over the crops, by name; empty when there are none or a value is not finite.

        Where the crops of a batch do not fit into memory, fewer are judged at a time.
        """
        while True:
            try:
                return self._losses(recipe, device, step, tell)
            except Exception as error:
                if not is_out_of_memory(error) or self._size == 1:
                    raise
            self._size = -(-self._size // 2)
            give_back()

    def _losses(self, recipe: Recipe, device: torch.device, step: int, tell: Callable[[], None]) -> dict[str, float]:
        sums: dict[str, float] = {}
        count = 0
        for crops in held_out_batches(self.pieces, self._size, recipe.segment_frames, most=MOST_CROPS):
            seeds = tuple(stream_seed(self.seed, "validation", count + i) for i in range(len(crops)))
            batch = collate(crops, recipe.segment_frames, recipe.hop_length, step, seeds)
            try:
                losses = recipe.validate(batch.to(device))
            except BadStep:
                return {}
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(crops)
            count += len(crops)
            tell()
        return {name: value / count for name, value in sums.items()}


@dataclass
class Best:
    """The state that was best on held-out speech. `value`: what the last validation gave; `lowest`: the lowest loss
    before a finish, in which the state that is kept is a later one."""

    step: int | None = None
    loss: float | None = None
    value: float | None = None
    lowest: float | None = None

    def improves(self, value: float, step: int) -> bool:
        """Remember `value` of `step`; True when it is the best so far."""
        self.value = value
        if value != value or (self.loss is not None and value >= self.loss):
            return False
        self.loss, self.step, self.lowest = value, step, value
        return True

    def follows(self, value: float, step: int) -> bool:
        """Remember `value` of `step` in a finish; True when the voice is still whole, which makes it the one to keep.

        Judges ask for detail, and a distance from the truth forgives its absence: the loss no longer says which voice
        is better, but it still says when one is breaking.
        """
        self.value = value
        if value != value or (self.lowest is not None and value > WHOLE * self.lowest):
            return False
        self.loss, self.step = value, step
        return True
