"""How is a voice made of the mean of its last weights? An exponential moving average beside the network that learns."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn


class WeightAverage(nn.Module):
    """Follows a network: average = decay * average + (1 - decay) * weights, after each step (Polyak averaging).

    The decay starts low, min(decay, (1 + n) / (10 + n)) after n updates, so that the first weights are soon forgotten.
    All state is in buffers and parameters: a checkpoint that holds this module resumes bit by bit.
    """

    updates: Tensor

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move towards the weights of `network`; buffers are taken as they are."""
        done = int(self.updates)
        decay = min(self.decay, (1 + done) / (10 + done))
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), 1 - decay)
        for mine, theirs in zip(self.network.buffers(), network.buffers(), strict=True):
            mine.copy_(theirs)
        self.updates += 1
