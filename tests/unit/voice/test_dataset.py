"""A dataset is checked in full, split by source, and drawn in an order that depends on seed and step alone."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.common.errors import DatasetEmpty, DatasetNotPrepared, DatasetTooShort
from libs.voice.batching import Batches, held_out_batches
from libs.voice.dataset import Piece, fingerprint, read_pieces, split_pieces
from tests.unit.voice.experiments import make_experiment


def piece(name: str, frames: int = 100, speaker: int = 0) -> Piece:
    none = Path("none")
    return Piece(name, none, none, none, none, speaker, frames)


def test_every_piece_of_the_list_is_read_whatever_its_order(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path, sources=3, pieces=2, mutes=2)
    before = read_pieces(folder, 16_000, 768)
    lines = (folder / "filelist.txt").read_text().splitlines()

    (folder / "filelist.txt").write_text("\n".join(sorted(lines, reverse=True)))

    assert len(before) == 8
    assert read_pieces(folder, 16_000, 768) == before
    assert fingerprint(read_pieces(folder, 16_000, 768)) == fingerprint(before)


def test_paths_in_the_list_may_be_absolute(tmp_path: Path) -> None:
    folder = make_experiment(tmp_path / "a", sources=2)
    moved = tmp_path / "b" / "filelist.txt"
    moved.parent.mkdir()
    lines = [line.split("|") for line in (folder / "filelist.txt").read_text().splitlines()]

    moved.write_text("\n".join("|".join([*(str(folder / f) for f in fields[:4]), fields[4]]) for fields in lines))

    assert len(read_pieces(moved.parent, 16_000, 768)) == 4


def damage(folder: Path, what: str) -> None:
    wave, feature = folder / "0_gt_wavs/0_0.wav", folder / "3_feature768/0_0.npy"
    pitch, coarse = folder / "2b_f0nsf/0_0.wav.npy", folder / "2a_f0/0_0.wav.npy"
    match what:
        case "0_0.wav .*cannot be read":
            wave.unlink()
        case "22050 Hz and 1 channels; 16000":
            soundfile.write(str(wave), np.zeros(22_050), 22_050)
        case "0_0.npy holds values that are not finite":
            np.save(feature, np.full((50, 768), np.nan, np.float32))
        case "width 256; 768 is needed":
            np.save(feature, np.zeros((50, 256), np.float32))
        case "0_0.npy cannot be read":
            feature.write_bytes(b"\x80\x04.")
        case "from 1 to 255":
            np.save(coarse, np.zeros(100, np.int64))
        case "negative frequencies":
            np.save(pitch, np.full(100, -1.0))
        case "not of one piece":
            np.save(pitch, np.zeros(400))
        case "4 fields; 5":
            (folder / "filelist.txt").write_text("a|b|c|0")
        case "is no number":
            (folder / "filelist.txt").write_text("a|b|c|d|x")
        case "line 1: speaker 109 is outside 0…108":
            (folder / "filelist.txt").write_text("a|b|c|d|109")
        case "line 1: speaker -1 is outside 0…108":
            (folder / "filelist.txt").write_text("a|b|c|d|-1")
        case "filelist.txt is missing":
            (folder / "filelist.txt").unlink()
        case "not UTF-8":
            (folder / "filelist.txt").write_bytes(b"\xff\xfe\xfa")


@pytest.mark.parametrize(
    "what",
    [
        "0_0.wav .*cannot be read",
        "22050 Hz and 1 channels; 16000",
        "0_0.npy holds values that are not finite",
        "width 256; 768 is needed",
        "0_0.npy cannot be read",
        "from 1 to 255",
        "negative frequencies",
        "not of one piece",
        "4 fields; 5",
        "is no number",
        "line 1: speaker 109 is outside 0…108",
        "line 1: speaker -1 is outside 0…108",
        "filelist.txt is missing",
        "not UTF-8",
    ],
)
def test_a_damaged_experiment_is_named_before_training_starts(tmp_path: Path, what: str) -> None:
    folder = make_experiment(tmp_path, sources=1, pieces=1)

    damage(folder, what)

    with pytest.raises(DatasetNotPrepared, match=what):
        read_pieces(folder, 16_000, 768)


def test_an_empty_list_and_a_list_of_crumbs_are_refused(tmp_path: Path) -> None:
    crumbs = make_experiment(tmp_path / "crumbs", seconds=0.05, sources=2)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "filelist.txt").write_text("\n")

    with pytest.raises(DatasetTooShort, match="longer than"):
        read_pieces(crumbs, 16_000, 768)
    with pytest.raises(DatasetEmpty):
        read_pieces(empty, 16_000, 768)


@given(
    lengths=st.dictionaries(st.integers(0, 60), st.lists(st.integers(10, 900), min_size=1, max_size=6), min_size=2),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**40),
)
def test_a_split_keeps_sources_whole_and_both_sides_filled(
    lengths: dict[int, list[int]], share: float, seed: int
) -> None:
    pieces = [piece(f"{i}_{j}", frames) for i, row in lengths.items() for j, frames in enumerate(row)]

    split = split_pieces(pieces, share, seed)

    assert split == split_pieces(pieces, share, seed)
    assert split.training
    assert split.held_out
    assert set(split.training) | set(split.held_out) == set(pieces)
    assert not {p.source for p in split.training} & {p.source for p in split.held_out}


def test_silence_is_never_held_out_and_a_single_source_gives_its_last_pieces() -> None:
    single = split_pieces([piece(f"0_{i}") for i in range(11)] + [piece("mute0")], 0.2, 1)
    alone = split_pieces([piece("0_0"), piece("mute0")], 0.2, 1)
    none = split_pieces([piece("0_0"), piece("1_0")], 0.0, 1)

    assert single.by == "piece"
    assert [p.name for p in single.held_out] == ["0_9", "0_10"]
    assert alone.by == "none"
    assert not alone.held_out
    assert none.by == "none"
    assert not none.held_out


@given(
    speech=st.lists(
        st.lists(st.lists(st.integers(10, 900), min_size=1, max_size=4), min_size=1, max_size=6), min_size=2, max_size=5
    ),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 2**40),
)
def test_each_speaker_is_split_as_if_alone(speech: list[list[list[int]]], share: float, seed: int) -> None:
    sources = [(speaker, row) for speaker, rows in enumerate(speech) for row in rows]
    pieces = [
        piece(f"{i}_{j}", frames, speaker) for i, (speaker, row) in enumerate(sources) for j, frames in enumerate(row)
    ]

    split = split_pieces(pieces, share, seed)

    assert set(split.training) | set(split.held_out) == set(pieces)
    for speaker in range(len(speech)):
        own = [p for p in pieces if p.speaker == speaker]
        alone = split_pieces([dataclasses.replace(p, speaker=0) for p in own], share, seed)
        assert [p.name for p in split.held_out if p.speaker == speaker] == [p.name for p in alone.held_out]
        assert any(p.speaker == speaker for p in split.training)
        assert any(p.speaker == speaker for p in split.held_out) == (len(own) > 1)


def test_who_says_little_is_judged_as_much_as_who_says_a_lot() -> None:
    much, little = [piece(f"{i}_0") for i in range(60)], [piece("90_0", speaker=4), piece("91_0", speaker=4)]

    batches = held_out_batches(much + little, 4, 100, most=16)

    judged = [piece.speaker for batch in batches for piece, _ in batch]
    assert (judged.count(0), judged.count(4)) == (8, 2)
    assert [p.name for batch in held_out_batches(much, 16, 100, most=16) for p, _ in batch] == [
        f"{i}_0" for i in range(0, 60, 4)
    ]


def test_the_same_seed_and_step_give_the_same_batch_and_another_step_another(tmp_path: Path) -> None:
    pieces = read_pieces(make_experiment(tmp_path, sources=4, seconds=2), 16_000, 768)

    first, again = Batches(pieces, 3, 7, 50, 16_000), Batches(pieces, 3, 7, 50, 16_000)
    for step in (0, 5):
        again(step)
    one, two, other = first(11), again(11), first(12)

    assert torch.equal(one.wave, two.wave)
    assert torch.equal(one.content, two.content)
    assert one.seeds == two.seeds
    assert not set(one.seeds) & set(other.seeds)
    assert not torch.equal(one.wave, other.wave)


def test_an_epoch_shows_every_piece(tmp_path: Path) -> None:
    pieces = read_pieces(make_experiment(tmp_path, sources=5, pieces=1), 16_000, 768)
    batches = Batches(pieces, 2, 3, 900, 16_000)

    seen = {float(row.abs().sum()) for step in range(batches.steps_per_epoch) for row in batches(step).wave}

    assert batches.steps_per_epoch == 3
    assert len(seen) == 5


@pytest.mark.parametrize("segment", [7, 30, 51, 900])
def test_sound_content_and_pitch_of_a_crop_belong_together(tmp_path: Path, segment: int) -> None:
    folder = make_experiment(tmp_path, sources=2, seconds=1)
    pieces = read_pieces(folder, 16_000, 768)
    for each in pieces:  # every value says which frame it is
        frames = soundfile.info(str(each.wave)).frames // 160
        soundfile.write(str(each.wave), np.repeat(np.arange(frames), 160) / 1000, 16_000, subtype="FLOAT")
        np.save(each.content, np.arange(frames // 2, dtype=np.float32)[:, None].repeat(768, 1))
        np.save(each.f0, np.arange(frames + 1, dtype=np.float32))

    batch = Batches(pieces, 4, 1, segment, 16_000)(2)

    assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
    for i, frames in enumerate(batch.lengths.tolist()):
        f0 = batch.f0_hz[i, :frames]
        assert torch.equal(f0, torch.arange(frames) + f0[0])
        assert torch.equal(batch.content[i, :frames, 5], f0 // 2)
        assert torch.allclose(batch.wave[i, : frames * 160 : 160] * 1000, f0, atol=1e-3)
        assert not batch.wave[i, frames * 160 :].any()
        assert not batch.f0_hz[i, frames:].any()


def test_the_judged_crops_are_few_and_always_the_same() -> None:
    pieces = [piece(f"{i}_0", 400) for i in range(100)]

    batches = held_out_batches(pieces, 8, 150, most=20)

    assert batches == held_out_batches(pieces, 8, 150, most=20)
    assert sum(map(len, batches)) == 20
    assert all(first == 125 for batch in batches for _, first in batch)
