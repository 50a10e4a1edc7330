"""How is a voice's retrieval index built? From the prepared features alone, so it is the same whenever it is built."""

from __future__ import annotations

from pathlib import Path


def build(features: list[Path], target: Path) -> int:
    """Writes the index of the feature files (sorted by name) to `target`; returns the number of vectors.

    Runs in a child process. Raises DatasetEmpty, InvalidInput, StorageFull.
    """
    import numpy as np

    from libs.voice.experiment import load_array
    from libs.voice.retrieval import build_index, write_index

    arrays = (np.asarray(load_array(path), dtype=np.float32) for path in sorted(features))
    built = build_index(arrays, seed=0)
    write_index(built, target)
    return built.rows
