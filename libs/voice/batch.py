"""What does one step of training learn from, and how is it cut into parts that give the same step?"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """B items of T frames of 10 ms (at most `segment_frames`), zero-padded at the end.

    content  float32 [B, T, content_width]   content features, each 20 ms frame held twice
    f0_hz    float32 [B, T]                  0 where unvoiced, and everywhere for voices without pitch
    coarse   int64   [B, T]                  1..255
    wave     float32 [B, T * hop_length]     -1..1 at the recipe's sample rate
    lengths  int64   [B]                     frames that are real, sorted descending
    speakers int64   [B]
    step     the number of the optimisation step, from 0; a schedule may be a function of it
    seeds    one per item: all chance of an item comes from its seed, so that an item meets the same chance in whatever
             part, process or repetition it is computed, and a resumed run is bit-identical
    share, frames_share  how much of the step's whole batch this part is, counted in items and in real frames: the
             weights with which losses that are means over items or over frames add up to those of the whole
    """

    content: Tensor
    f0_hz: Tensor
    coarse: Tensor
    wave: Tensor
    lengths: Tensor
    speakers: Tensor
    step: int
    seeds: tuple[int, ...]
    share: float = 1.0
    frames_share: float = 1.0

    @property
    def size(self) -> int:
        """B."""
        return self.content.shape[0]

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`."""
        names = ("content", "f0_hz", "coarse", "wave", "lengths", "speakers")
        return dataclasses.replace(self, **{name: getattr(self, name).to(device) for name in names})

    def split(self, most: int) -> list[Batch]:
        """Parts of at most `most` items, of sizes that differ by one at most, with the padding that they have.

        The padding stays because means over samples then weigh the same as in the whole.
        """
        count = -(-self.size // most)
        bounds = [self.size * i // count for i in range(count + 1)]
        frames = int(self.lengths.sum())
        parts = []
        for first, last in itertools.pairwise(bounds):
            lengths = self.lengths[first:last]
            part = Batch(
                self.content[first:last],
                self.f0_hz[first:last],
                self.coarse[first:last],
                self.wave[first:last],
                lengths,
                self.speakers[first:last],
                self.step,
                self.seeds[first:last],
                self.share * (last - first) / self.size,
                self.frames_share * int(lengths.sum()) / frames,
            )
            parts.append(part)
        return parts

    def normal(self, purpose: str, like: Tensor) -> Tensor:
        """Standard normal values in shape, type and place of `like` `[B, …]`; a function of the seeds and `purpose`."""
        rows = [torch.randn(like.shape[1:], generator=_generator(seed, purpose)) for seed in self.seeds]
        return torch.stack(rows).to(like)

    def uniform(self, purpose: str) -> Tensor:
        """One float32 in 0…1 per item `[B]`, on the CPU."""
        return torch.cat([torch.rand(1, generator=_generator(seed, purpose)) for seed in self.seeds])


def _generator(seed: int, purpose: str) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(seed, purpose, 0))


def stream_seed(seed: int, purpose: str, number: int) -> int:
    """An independent 63-bit seed for each (seed, purpose, number)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
