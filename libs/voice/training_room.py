"""Is there room on the disk for what a run will write? Asked before it starts, not found out after hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from libs.common.errors import StorageFull
from libs.voice.recipe import Recipe
from libs.voice.training_config import TrainingConfig

SPARE_BYTES = 16 * 2**20


def bytes_needed(recipe: Recipe, config: TrainingConfig) -> int:
    """What a whole run of `config` keeps on disk at its worst moment, in bytes.

    A checkpoint holds the weights and two moments of each; one more than are kept is there while one is written. Of
    voices there are the best of each kept checkpoint, a new best and the final one.
    """
    weights: dict[str, int] = {
        name: sum(v.nbytes for v in module.state_dict().values()) for name, module in recipe.modules().items()
    }
    learning = sum(weights[name] for name in recipe.optimizers())
    state: int = sum(weights.values()) + 2 * learning
    voices = (config.keep_checkpoints + 3) * weights["generator"]
    pairs = 0 if config.preset == "lite" else {"none": 0, "end": 1, "every": 2}[config.rvc_checkpoints]
    return state * (config.keep_checkpoints + 1) + voices + pairs * 3 * learning + SPARE_BYTES


def check_room(folder: Path, needed: int) -> None:
    """Raises StorageFull, naming both numbers, when the disk of `folder` has less than `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageFull(
            f"a training needs {needed / 1e9:.2f} GB for its checkpoints and voices, and {free / 1e9:.2f} GB are free"
        )
