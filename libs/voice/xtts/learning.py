"""How is one step of fine-tuning made, also where all of its clips do not fit into memory at once?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from libs.voice.batch import stream_seed
from libs.voice.faults import BadStep
from libs.voice.memory import first_line, give_back, is_out_of_memory
from libs.voice.recipe import check_gradients, check_losses
from libs.voice.xtts.network import Item, TrainingNetwork


class Learner:
    """Makes steps; `most` clips are in memory at once, fewer from the first step on for which that was too many."""

    def __init__(
        self,
        network: TrainingNetwork,
        optimizer: torch.optim.Optimizer,
        *,
        seed: int,
        precision: torch.dtype,
        most: int,
        say: Callable[[str], None],
        alive: Callable[[], None],
    ) -> None:
        """`say` writes a line of the run's log, `alive` is called after each part of a step."""
        self.most = most
        self._network = network
        self._optimizer = optimizer
        self._seed = seed
        self._precision = precision
        self._say = say
        self._alive = alive

    def learn(self, items: Sequence[Item], step: int) -> dict[str, float]:
        """One step from all items, the same one again in smaller parts when memory runs out; its losses by name.

        Raises BadStep when a loss or a gradient is not finite, and the error itself when not even one clip fits.
        """
        while True:
            try:
                return self._in_parts(items, step)
            except Exception as error:
                if not is_out_of_memory(error) or self.most == 1:
                    raise
                said = first_line(error)
            self.most = -(-self.most // 2)
            self._optimizer.zero_grad(set_to_none=True)
            give_back()
            self._say(f"memory ran out at step {step} ({said}): {self.most} clips at once now")

    def _in_parts(self, items: Sequence[Item], step: int) -> dict[str, float]:
        gpt = self._network.gpt
        gpt.train()
        self._optimizer.zero_grad(set_to_none=True)
        torch.manual_seed(stream_seed(self._seed, "step", step))
        sums: dict[str, float] = {}
        learnt, bad = 0, BadStep("there is nothing to learn")
        for begin in range(0, len(items), self.most):
            part = items[begin : begin + self.most]
            share = len(part) / len(items)
            losses = self._network.losses(part, masked=True, precision=self._precision)
            try:
                values = check_losses(losses)
            except BadStep as error:  # a clip that is masked whole, as one in fifty is, has nothing to predict
                bad = error
                continue
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + share * value
            (share * losses["loss"]).backward()  # type: ignore[no-untyped-call]
            learnt += len(part)
            self._alive()
        if not learnt:
            raise bad
        if learnt < len(items):
            self._say(f"step {step} is learnt from {learnt} of {len(items)} clips: {bad}")
            scale = len(items) / learnt
            sums = {name: scale * value for name, value in sums.items()}
            for parameter in gpt.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(scale)
        check_gradients(gpt.parameters())
        self._optimizer.step()
        return sums
