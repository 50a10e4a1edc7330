"""How is a voice's retrieval index built? From the prepared features alone, so it is the same whenever it is built."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from libs.voice.retrieval import Float32


def build(features: list[Path], target: Path, mode: Literal["rvc", "fast"] = "rvc") -> dict[str, Any]:
    """Writes the index of the feature files (sorted by name) to `target`; returns `rows` and what the card records.

    Runs in a child process. Raises DatasetEmpty, InvalidInput, StorageFull.
    """
    import numpy as np

    from libs.voice.experiment import load_array
    from libs.voice.fast_index import build_fast_index
    from libs.voice.retrieval import NPROBE, build_index, write_index

    def arrays() -> Iterator[Float32]:
        return (np.asarray(load_array(path), dtype=np.float32) for path in sorted(features))

    if mode == "fast":
        fast = build_fast_index(arrays)
        write_index(fast.built, target)
        return {"rows": fast.built.rows, "card": fast.card()}
    built = build_index(arrays(), seed=0)
    write_index(built, target)
    return {
        "rows": built.rows,
        "card": {"mode": "rvc", "lists": built.lists, "nprobe": NPROBE, "reduced": built.reduced},
    }
