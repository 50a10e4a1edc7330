"""Which clips does a step learn from, and which part of each is the prompt? Decided by seed and step alone.

So a run that was killed goes on with exactly what would have come next.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.audio.decode import decode
from libs.audio.resample import resample
from libs.voice.batch import stream_seed
from libs.voice.xtts.network import PROMPT, SAMPLE_RATE, Item, Wave


def read_wave(path: Path) -> Wave:
    """The sound of a clip, float32 `[T]` at 22,050 Hz. Raises BrokenAudio, UnsupportedAudio, RecordingTooLong."""
    sound = decode(path, limit_seconds=60.0)
    return resample(sound.wave, sound.sample_rate, SAMPLE_RATE)


MOST_JUDGED = 16


class Clips:
    """The clips of one side of the split; sounds are kept, because a dataset of minutes fits into memory."""

    def __init__(self, clips: Sequence[tuple[Path, list[int]]], seed: int) -> None:
        """`clips`: file and tokens of each."""
        self._clips = list(clips)
        self._seed = seed
        self._waves: dict[int, Wave] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def steps_per_epoch(self, size: int) -> int:
        """How many batches of `size` a pass over all clips takes."""
        return -(-len(self) // size)

    def batch(self, step: int, size: int) -> list[Item]:
        """The batch number `step`, from 0: each clip once in an epoch, its last batch filled up from the first."""
        per_epoch = self.steps_per_epoch(size)
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng(stream_seed(self._seed, "order", epoch)).permutation(len(self))
        chosen = [int(order[n % len(self)]) for n in range(place * size, (place + 1) * size)]
        random = np.random.default_rng(stream_seed(self._seed, "prompts", step))
        return [self._item(index, random) for index in chosen]

    def held_out(self) -> list[Item]:
        """The clips to judge by, at most 16, each with the same prompt every time."""
        return [self._item(index, None) for index in range(min(len(self), MOST_JUDGED))]

    def _item(self, index: int, random: np.random.Generator | None) -> Item:
        path, tokens = self._clips[index]
        if index not in self._waves:
            self._waves[index] = read_wave(path)
        wave = self._waves[index]
        return Item(torch.from_numpy(wave), torch.tensor(tokens, dtype=torch.long), _prompt(len(wave), random))


def _prompt(length: int, random: Any) -> tuple[int, int]:
    """Begin and end of the prompt in a clip of `length` samples: 3 to 6 s, or half of a clip that is shorter."""
    wanted = sum(PROMPT) // 2 if random is None else int(random.integers(PROMPT[0], PROMPT[1] + 1))
    size = wanted if wanted <= length else length // 2
    begin = 0 if random is None else int(random.integers(0, length - size + 1))
    return begin, begin + size
