"""Which clips go through an encoder together? Clips of like length, few enough to fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

CPU_BATCH_SAMPLES = 64_000
"""4 s: a processor is busy with one clip of 2 s or more; short ones gain a third together (docs/benchmarks.md)."""
GPU_BATCH_SAMPLES = 60 * 16_000
LEAST_SHARE = 0.75
"""A clip shorter than this share of its batch's longest would be mostly padding, and starts a batch of its own."""


def plan_batches(lengths: Sequence[int], most_samples: int) -> list[list[int]]:
    """Places in `lengths` (samples of each clip) that go together: each place once, longest clips first.

    A batch takes at most `most_samples` samples, padding included; a clip that is longer goes alone.
    """
    batches: list[list[int]] = []
    for place in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if batches:
            longest = lengths[batches[-1][0]]
            fits = longest * (len(batches[-1]) + 1) <= most_samples
            if fits and lengths[place] >= LEAST_SHARE * longest:
                batches[-1].append(place)
                continue
        batches.append([place])
    return batches


def batch_samples(device: torch.device) -> int:
    """Samples at 16 kHz that one batch may have on `device`."""
    return CPU_BATCH_SAMPLES if device.type == "cpu" else GPU_BATCH_SAMPLES


def padded(waves: Sequence[Float32]) -> torch.Tensor:
    """Clips as one tensor `[B, longest]`, zeros behind the shorter ones."""
    out = np.zeros((len(waves), max(len(wave) for wave in waves)), dtype=np.float32)
    for row, wave in zip(out, waves, strict=True):
        row[: len(wave)] = wave
    return torch.from_numpy(out)


def in_batches(
    waves: Sequence[Float32], most_samples: int, encode: Callable[[list[Float32]], list[Float32]]
) -> list[Float32]:
    """`encode` applied to batches of `waves` (`[L]`, 16 kHz); their features `[Th, width]` in the order of `waves`."""
    results: list[Float32 | None] = [None] * len(waves)
    for batch in plan_batches([len(wave) for wave in waves], most_samples):
        for place, features in zip(batch, encode([waves[i] for i in batch]), strict=True):
            results[place] = features
    return [features for features in results if features is not None]
