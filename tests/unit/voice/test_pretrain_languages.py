"""How languages are measured: what features hold of articulation is read by one linear layer, and nothing else is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from libs.voice.phones import PHONES
from scripts.pretrain import languages, synthetic
from scripts.pretrain.articulation import FEATURES
from scripts.pretrain.languages import measured, reader
from scripts.pretrain.pieces import Piece

FRAMES = 400


def piece(voice: str, seed: int, share: float = 0.3) -> Piece:
    chance = torch.Generator().manual_seed(seed)
    articulation = (torch.rand(len(FEATURES), FRAMES, generator=chance) < share).float()
    nothing = torch.zeros(80, 2 * FRAMES)
    return Piece(voice, nothing, nothing, torch.zeros(len(PHONES), FRAMES), torch.zeros(FRAMES), articulation)


def mixed(told: Piece) -> Tensor:
    """Everything that is articulated, each feature in all outputs."""
    chance = torch.Generator().manual_seed(0)
    return told.articulation.nan_to_num().T @ torch.randn(len(FEATURES), 40, generator=chance)


def noise(told: Piece) -> Tensor:
    return torch.randn(FRAMES, 40, generator=torch.Generator().manual_seed(int(told.articulation.sum())))


def test_what_features_hold_is_read_whole_and_what_they_do_not_hold_is_not_guessed() -> None:
    learned = [piece("de", seed) for seed in range(8)]
    unseen = [piece("de", 100), piece("cs+f3", 101)]

    whole, nothing = measured(mixed, learned, unseen), measured(noise, learned, unseen)

    assert whole == {"articulation_de": 1.0, "articulation_cs": 1.0}
    assert all(abs(value) < 0.05 for value in nothing.values())


def test_a_rare_feature_is_found_as_well_as_a_common_one() -> None:
    rare = [piece("de", seed, share=0.01) for seed in range(8)]

    found = measured(mixed, rare, [piece("de", 100, share=0.01)])

    assert found["articulation_de"] > 0.95


def test_frames_of_which_nothing_is_known_are_neither_learned_from_nor_counted() -> None:
    learned, unseen = [piece("de", seed) for seed in range(4)], piece("de", 100)
    clean = reader(mixed, learned)
    for each in (*learned, unseen):
        each.articulation = torch.cat((each.articulation, torch.full((len(FEATURES), 50), float("nan"))), dim=1)

    torch.testing.assert_close(reader(mixed, learned).weight, clean.weight)
    assert measured(mixed, learned, [unseen]) == {"articulation_de": 1.0}


def test_the_shipped_encoder_tells_articulation_in_languages_that_it_never_heard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.main([str(tmp_path / "speech.npz"), "--minutes", "1.5"])
    capsys.readouterr()

    languages.main([str(tmp_path / "speech.npz")])

    content, log_mels = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert {"articulation_en-us", "articulation_de", "articulation_cs"} <= set(content["content"])
    assert set(content["content"]) == set(log_mels["log-mels"])
    assert all(value > 0.35 for value in content["content"].values()), content
