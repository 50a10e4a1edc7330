"""How does a `lite` training end? With steps in which judges learn beside the voice, and the voice learns to pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from libs.voice.lite_judges import Judges
from libs.voice.recipe import check_gradients, check_losses, new_optimizer
from libs.voice.team import Team
from libs.voice.training_config import TrainingConfig

JUDGES_RATE = 1e-3
ALONE = 10
"""In the first tenth of the finish the judges learn and nobody listens to them: what they say at first is chance."""

ADVERSARIAL_WEIGHT = 1.0
FEATURE_WEIGHT = 2.0
LARGEST_GRADIENT = 10.0


class Finish:
    """The judges of one run, their optimiser, and what they tell the voice."""

    def __init__(self, config: TrainingConfig, device: torch.device, team: Team) -> None:
        """`config` is resolved; weights are drawn from torch's global stream."""
        self.judges = Judges().to(device)
        self.optimizer = new_optimizer(
            self.judges.parameters(), config, rate=JUDGES_RATE, decay=0.01, betas=(0.8, 0.99), epsilon=1e-8
        )
        self._team = team

    def levels(self, real: Sequence[Tensor]) -> list[float]:
        """See `Judges.levels`."""
        return self.judges.levels(real)

    def hear(
        self,
        real: Sequence[Tensor],
        made: Sequence[Tensor],
        share: float = 1.0,
        levels: Sequence[float] | None = None,
        *,
        alone: bool = False,
    ) -> tuple[Tensor, dict[str, float]]:
        """Magnitudes of a part of the batch, `[B, bins, frames]` for each judge → what to add to the voice's loss.

        The judges' gradients are added to those that they have. What is returned is no loss to look at: its gradient
        is that of the judgement, found with the spectra as leaves, so that both learn from one pass; `alone`: it is
        zero. `share` and `levels`: as of a Batch, and of `Judges`. With it come the losses by name; raises BadStep when
        one is not finite.
        """
        leaves = [each.detach().requires_grad_() for each in made]
        verdict = self.judges(real, leaves, levels)
        losses = {
            "adversarial": share * verdict.adversarial,
            "feature": share * verdict.feature,
            "discriminator": share * verdict.discriminator,
        }
        told = check_losses(losses)
        losses["discriminator"].backward(retain_graph=not alone, inputs=list(self.judges.parameters()))
        answer = made[0].new_zeros(())
        if not alone:
            goal = ADVERSARIAL_WEIGHT * losses["adversarial"] + FEATURE_WEIGHT * losses["feature"]
            for each, gradient in zip(made, torch.autograd.grad(goal, leaves), strict=True):
                answer = answer + (each * gradient).sum()
        return answer, told

    def check(self) -> None:
        """The gradients of all processes together, clipped; raises BadStep when they are not finite."""
        parameters = list(self.judges.parameters())
        self._team.sum_gradients(parameters)
        check_gradients(parameters, LARGEST_GRADIENT)
