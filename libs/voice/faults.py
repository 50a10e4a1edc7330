"""How does a step say that its numbers went wrong?"""

from __future__ import annotations


class BadStep(ArithmeticError):
    """A loss or gradient is not finite. Raised by `Recipe.step` before the optimiser runs; the trainer skips the step
    and counts it, and gives up with TrainingDiverged after several in a row."""
