"""Batches hold pieces of like length, every piece of an epoch and nothing else, and there is always one."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.voice.batching import BUCKET_FRAMES, Batches, epoch_order
from libs.voice.dataset import Piece, read_pieces
from tests.unit.voice.experiments import make_experiment


def piece(name: str, frames: int) -> Piece:
    none = Path("none")
    return Piece(name, none, none, none, none, 0, frames)


@given(
    lengths=st.lists(st.integers(10, 900), min_size=1, max_size=60),
    batch_size=st.integers(1, 16),
    seed=st.integers(0, 2**32),
)
def test_every_piece_is_learnt_from_in_every_epoch_and_no_batch_is_short(
    lengths: list[int], batch_size: int, seed: int
) -> None:
    order = epoch_order(np.array(lengths), batch_size, np.random.default_rng(seed))

    counts = Counter(order.ravel().tolist())
    assert order.shape == (-(-len(lengths) // batch_size), batch_size)
    assert counts.keys() == set(range(len(lengths)))
    assert max(counts.values()) - min(counts.values()) <= 1


@given(lengths=st.lists(st.integers(10, 899), min_size=1, max_size=80), seed=st.integers(0, 2**32))
def test_batches_hold_neighbouring_lengths(lengths: list[int], seed: int) -> None:
    buckets = np.array(lengths) // BUCKET_FRAMES
    order = epoch_order(np.array(lengths), 4, np.random.default_rng(seed))

    spans = sorted((int(buckets[row].min()), int(buckets[row].max())) for row in order)

    # sorted by length, one batch ends where the next begins: none lies across another
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(spans))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_few_pieces_give_batches_to_every_process(tmp_path: Path, count: int, ranks: int) -> None:
    pieces = read_pieces(make_experiment(tmp_path, sources=count, pieces=1, seconds=0.3), 16_000, 768)

    shares = [Batches(pieces, 4, 1, 900, 16_000, rank=rank, ranks=ranks)(0) for rank in range(ranks)]

    assert all(share.size >= 1 for share in shares)
    assert sum(share.share for share in shares) == pytest.approx(1)
    assert sum(share.frames_share for share in shares) == pytest.approx(1)


def test_processes_share_a_batch_without_overlap_and_each_with_chance_of_its_own(tmp_path: Path) -> None:
    pieces = read_pieces(make_experiment(tmp_path, sources=6, pieces=2, seconds=0.5), 16_000, 768)

    for step in range(5):
        whole = Batches(pieces, 6, 1, 900, 16_000)(step)
        shares = [Batches(pieces, 6, 1, 900, 16_000, rank=rank, ranks=2)(step) for rank in range(2)]

        assert sorted(seed for share in shares for seed in share.seeds) == sorted(whole.seeds)
        assert not set(shares[0].seeds) & set(shares[1].seeds)
        sums = [sorted(row.double().abs().sum().item() for s in of for row in s.wave) for of in ([whole], shares)]
        assert sums[0] == pytest.approx(sums[1])
        assert {share.content.shape[1] for share in shares} == {whole.content.shape[1]}


def test_the_parts_of_a_batch_are_the_batch(tmp_path: Path) -> None:
    pieces = read_pieces(make_experiment(tmp_path, sources=5, pieces=1, seconds=0.5), 16_000, 768)
    whole = Batches(pieces, 5, 1, 900, 16_000)(0)

    parts = whole.split(2)

    assert [part.size for part in parts] == [1, 2, 2]
    assert torch.equal(torch.cat([part.wave for part in parts]), whole.wave)
    assert sum(part.frames_share for part in parts) == pytest.approx(1)
    assert sum(part.share for part in parts) == pytest.approx(1)
    noise = torch.cat([part.normal("latent", part.content) for part in parts])
    assert torch.equal(noise, whole.normal("latent", whole.content))
    assert not torch.equal(noise[0], noise[1])


def test_most_of_a_batch_is_sound_and_not_padding() -> None:
    chance = np.random.default_rng(1)
    lengths = chance.integers(50, 450, 400)
    order = epoch_order(lengths, 8, chance)

    def share_of_padding(rows: np.ndarray) -> float:
        return float(1 - lengths[rows].sum() / sum(8 * lengths[row].max() for row in rows))

    unsorted = chance.permutation(400).reshape(50, 8)
    assert share_of_padding(order) < 0.25
    assert share_of_padding(order) < 0.6 * share_of_padding(unsorted)
