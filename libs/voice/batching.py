"""In which order do pieces become batches? By pieces, seed and step alone, so a resume needs only the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import soundfile
import torch

from libs.voice.batch import Batch, stream_seed
from libs.voice.dataset import Piece

BUCKET_FRAMES = 100
"""Pieces whose lengths lie in the same 100 frames are drawn together, so that little of a batch is padding."""


class Batches:
    """The stream of training batches, or the share of it that one of several processes learns from.

    Each epoch shows every piece once, in a new order, grouped by length; what is missing to whole batches is filled
    with pieces drawn from the same epoch. Nothing is left out, and there is never an epoch without a batch, however few
    the pieces. (RVC's sampler drops pieces by their file's size and leaves out short buckets; see
    docs/rvc-compatibility.md.) Pieces longer than `segment_frames` are cropped at a random frame.

    `batch_size`: items of a whole step over all processes.
    """

    def __init__(
        self,
        pieces: Sequence[Piece],
        batch_size: int,
        seed: int,
        segment_frames: int,
        sample_rate: int,
        *,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.pieces = list(pieces)
        wanted = min(batch_size, len(self.pieces))
        self.batch_size = -(-wanted // ranks) * ranks
        self.seed = seed
        self.segment_frames = segment_frames
        self.hop = sample_rate // 100
        self.rank, self.ranks = rank, ranks
        self._lengths = np.array([min(piece.frames, segment_frames) for piece in self.pieces])
        self._epoch: tuple[int, Any] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """At least 1."""
        return -(-len(self.pieces) // self.batch_size)

    def indices(self, step: int) -> list[int]:
        """Which pieces step `step` learns from, over all processes."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            chance = np.random.default_rng(stream_seed(self.seed, "order", epoch))
            self._epoch = (epoch, epoch_order(self._lengths, self.batch_size, chance))
        return [int(i) for i in self._epoch[1][place]]

    def __call__(self, step: int) -> Batch:
        """The batch of optimisation step `step` (this process's share of it), on the CPU."""
        crops = np.random.default_rng(stream_seed(self.seed, "crop", step))
        chosen = []
        for place, i in enumerate(self.indices(step)):
            spare = self.pieces[i].frames - self.segment_frames
            first = int(crops.integers(0, spare + 1)) if spare > 0 else 0
            chosen.append((self.pieces[i], first, stream_seed(self.seed, f"item {place}", step)))
        chosen.sort(key=lambda item: -min(item[0].frames, self.segment_frames))
        lengths = [min(piece.frames, self.segment_frames) for piece, _, _ in chosen]
        mine = slice(self.rank, None, self.ranks)
        return collate(
            [(piece, first) for piece, first, _ in chosen[mine]],
            self.segment_frames,
            self.hop,
            step,
            tuple(seed for _, _, seed in chosen[mine]),
            longest=lengths[0],
            share=len(lengths[mine]) / len(lengths),
            frames_share=sum(lengths[mine]) / sum(lengths),
        )


def epoch_order(lengths: Any, batch_size: int, chance: np.random.Generator) -> Any:
    """Indices of the pieces `[batches, batch_size]` of one epoch.

    Shuffled, filled up to whole batches from the same shuffle, sorted by bucket (the shuffle decides inside one), cut,
    and the batches shuffled. `lengths`: frames `[pieces]`.
    """
    count = len(lengths)
    batches = -(-count // batch_size)
    order: Any = np.resize(chance.permutation(count), batches * batch_size)
    order = order[np.argsort(lengths[order] // BUCKET_FRAMES, kind="stable")].reshape(batches, batch_size)
    return order[chance.permutation(batches)]


def held_out_batches(
    pieces: Sequence[Piece], batch_size: int, segment_frames: int, most: int
) -> list[list[tuple[Piece, int]]]:
    """Which crops are judged: the middle of each piece, at most `most` pieces spread evenly; always the same ones.

    Each speaker has an equal share of them, and one at least, however little there is of their speech.
    """
    speakers = sorted({piece.speaker for piece in pieces})
    fair = max(1, most // max(1, len(speakers)))
    chosen: list[Piece] = []
    for speaker in speakers:
        own = [piece for piece in pieces if piece.speaker == speaker]
        chosen += own[:: max(1, -(-len(own) // fair))]
    crops = [(piece, max(0, (piece.frames - segment_frames) // 2)) for piece in chosen]
    return [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]


def collate(
    chosen: Sequence[tuple[Piece, int]],
    segment_frames: int,
    hop: int,
    step: int,
    seeds: tuple[int, ...],
    *,
    longest: int | None = None,
    share: float = 1.0,
    frames_share: float = 1.0,
) -> Batch:
    """Read the crops (piece, first frame), pad them to `longest` frames (default: the longest of them), longest first.

    Only the cropped part of each file is read. `seeds` go with the crops as they are given.
    """
    pairs = sorted(zip(chosen, seeds, strict=True), key=lambda pair: -min(pair[0][0].frames, segment_frames))
    ordered = [crop for crop, _ in pairs]
    lengths = [min(piece.frames, segment_frames) for piece, _ in ordered]
    longest = longest if longest is not None else lengths[0]
    content: Any = None
    f0 = np.zeros((len(ordered), longest), np.float32)
    coarse = np.ones((len(ordered), longest), np.int64)
    wave = np.zeros((len(ordered), longest * hop), np.float32)
    for i, ((piece, first), frames) in enumerate(zip(ordered, lengths, strict=True)):
        features = np.load(piece.content, mmap_mode="r", allow_pickle=False)
        if content is None:
            content = np.zeros((len(ordered), longest, features.shape[1]), np.float32)
        last = first + frames
        halves = features[first // 2 : (last + 1) // 2].repeat(2, axis=0)
        content[i, :frames] = halves[first % 2 : first % 2 + frames]
        if piece.f0 is not None and piece.coarse is not None:
            f0[i, :frames] = np.load(piece.f0, mmap_mode="r", allow_pickle=False)[first:last]
            coarse[i, :frames] = np.load(piece.coarse, mmap_mode="r", allow_pickle=False)[first:last]
        samples, _ = soundfile.read(str(piece.wave), frames=frames * hop, start=first * hop, dtype="float32")
        wave[i, : len(samples)] = samples
    return Batch(
        torch.from_numpy(content),
        torch.from_numpy(f0),
        torch.from_numpy(coarse),
        torch.from_numpy(wave),
        torch.tensor(lengths),
        torch.tensor([piece.speaker for piece, _ in ordered]),
        step,
        tuple(seed for _, seed in pairs),
        share,
        frames_share,
    )
