"""How is one step made, whatever fits into memory? In parts that add up to the batch, halved when memory runs out."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch

from libs.common.errors import TrainingCrashed
from libs.voice.augmentation import augmented
from libs.voice.batch import Batch, stream_seed
from libs.voice.batching import Batches
from libs.voice.memory import first_line, give_back, is_out_of_memory
from libs.voice.recipe import Recipe


class Learner:
    """Makes steps. `most` is the number of items in memory at once; it only ever falls."""

    def __init__(
        self,
        recipe: Recipe,
        batches: Batches,
        device: torch.device,
        *,
        seed: int,
        most: int,
        augment: bool,
        on_smaller: Callable[[int, str], None],
    ) -> None:
        """`on_smaller` is told the new number of items and what the allocator said."""
        self.recipe = recipe
        self.most = most
        self._batches = batches
        self._device = device
        self._seed = seed
        self._augment = augment
        self._on_smaller = on_smaller

    def batch(self, step: int) -> Batch:
        """The batch of `step`, on the CPU; may be asked for in another thread."""
        batch = self._batches(step)
        return augmented(batch) if self._augment else batch

    def learn(self, batch: Batch) -> dict[str, float]:
        """One step; the losses by name.

        When memory runs out the step is made again in parts of half the size, and so are all later ones: the whole
        batch stays as it is. Raises BadStep, and TrainingCrashed when a single item does not fit.
        """
        here = batch.to(self._device)
        while True:
            seed_all(stream_seed(self._seed, "step", batch.step))
            try:
                return self.recipe.step(*here.split(self.most))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                said = first_line(error)
            # out here the frames of the failed step, and all tensors in them, are gone
            self._smaller(said, here.size)

    def _smaller(self, said: str, size: int) -> None:
        for optimizer in self.recipe.optimizers().values():
            optimizer.zero_grad(set_to_none=True)
        give_back()
        largest = min(self.most, size)
        if largest == 1:
            raise TrainingCrashed(
                f"memory ran out with one piece at a time: {said}",
                actions=(
                    "End other programs that use the memory, or train on a machine with more.",
                    "Choose a smaller preset such as lite.",
                ),
            )
        self.most = -(-largest // 2)
        self._on_smaller(self.most, said)


def seed_all(seed: int) -> None:
    """Set torch's, numpy's and Python's global random streams."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
