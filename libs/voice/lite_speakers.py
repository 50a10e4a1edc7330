"""How does one `lite` voice speak as several people? By what each adds to its first and its last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

TABLES = ("tints.first.weight", "tints.last.weight")
"""What a voice's file calls them: tensors with a row for each speaker."""


class Tints(nn.Module):
    """A row for each speaker and layer. Nobody adds anything before something was learned."""

    def __init__(self, speakers: int, width: int, heights: int) -> None:
        super().__init__()
        self.first = nn.Embedding(speakers, width)
        self.last = nn.Embedding(speakers, heights)
        for table in (self.first, self.last):
            nn.init.zeros_(table.weight)

    def forward(self, speakers: Tensor) -> tuple[Tensor, Tensor]:
        """int64 `[B]` → what they add, `[B, width]` and `[B, heights]`."""
        return self.first(speakers), self.last(speakers)


def with_everybody(table: Tensor) -> Tensor:
    """A learned table `[speakers, …]` in which numbers that nobody has, whose rows are zero, are the mean of the rest.

    Numbers need not be dense; and who is the only one is so by every number.
    """
    is_somebody = table.any(dim=1)
    if not is_somebody.any():
        return table
    return torch.where(is_somebody[:, None], table, table[is_somebody].mean(dim=0))
