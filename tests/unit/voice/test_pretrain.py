"""The scripts that make the content encoder: labels in several views, steps that are repeatable, a file that opens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.voice.content_network import ContentConfig
from libs.voice.content_small import SmallContentEncoder
from scripts.pretrain.encoder import Run, Training, Utterance, accuracy, augment, draw, load, ship
from scripts.pretrain.labels import SPEEDS, views_of
from scripts.pretrain.probes import nearest_phone, probe, speaker_told_apart
from tests.factories_audio import make_speech, speech

SMALL = ContentConfig(width=16, hidden=32, blocks=1)
SHORT = Training(steps=3, batch=4, frames=100, warmup=1)


@pytest.fixture(scope="module")
def utterances(tmp_path_factory: pytest.TempPathFactory) -> list[Utterance]:
    folder = tmp_path_factory.mktemp("speech")
    labels = {}
    for speaker, voice in (("1", "en-us+f3"), ("2", "en-us+m3")):
        name = f"{speaker}-1-0000.flac"
        make_speech(3.0, voice, folder / name, rate=16_000)
        labels[name] = views_of(speech(3.0, voice, rate=16_000))
    np.savez(folder / "labels.npz", allow_pickle=False, **labels)
    return load(folder, folder / "labels.npz", SMALL)


def test_views_lie_on_the_time_of_the_untouched_wave() -> None:
    wave = speech(3.0, "en-us", rate=16_000)

    views = views_of(wave)

    assert views.shape == (len(SPEEDS), 300)
    assert (views == views[0]).mean() > 0.5


def test_targets_are_shares_of_the_views(utterances: list[Utterance]) -> None:
    utterance = utterances[0]

    assert utterance.speaker == "1"
    torch.testing.assert_close(utterance.targets.sum(dim=0), torch.ones(utterance.targets.shape[1]))
    assert utterance.mel.shape[1] in (2 * utterance.targets.shape[1], 2 * utterance.targets.shape[1] - 1)


def test_augmentation_keeps_the_shape_and_stays_finite(utterances: list[Utterance]) -> None:
    mel, targets = draw(utterances, SHORT, torch.Generator().manual_seed(0))

    changed = augment(mel, torch.Generator().manual_seed(0))

    assert mel.shape == changed.shape == (4, 80, 100)
    assert targets.shape == (4, 42, 50)
    assert torch.isfinite(changed).all()
    assert not torch.equal(mel, changed)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads that a run sets is taken back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(utterances: list[Utterance], state: Path, minutes: float | None = None) -> Run:
    run = Run(SMALL, SHORT, state)
    run.go_on(utterances, utterances, minutes)
    return run


def test_the_same_seed_trains_the_same_weights_and_the_shipped_file_opens(
    utterances: list[Utterance], threads: None, tmp_path: Path
) -> None:
    for folder in ("first", "again"):
        first = trained(utterances, tmp_path / f"{folder}.pt").average.eval()
        ship(first, tmp_path / folder, {"data": "test"})

    contents = [(tmp_path / folder / "voicewright-content.safetensors").read_bytes() for folder in ("first", "again")]
    assert contents[0] == contents[1]
    encoder = SmallContentEncoder(tmp_path / "first" / "voicewright-content.safetensors")
    assert encoder.encode(np.zeros(1600, np.float32)).shape == (4, 768)
    sidecar = json.loads((tmp_path / "first" / "voicewright-content.json").read_text(encoding="utf-8"))
    assert sidecar["sha256"] == encoder.checksum
    assert 0 <= accuracy(first, utterances)["frame_accuracy"] <= 1
    assert set(probe(first, utterances)) > {"nearest_phone_posteriors", "speaker_told_apart_posteriors"}


def test_a_run_in_pieces_gives_the_weights_of_an_unbroken_one(
    utterances: list[Utterance], threads: None, tmp_path: Path
) -> None:
    whole = trained(utterances, tmp_path / "whole.pt")

    pieces = [trained(utterances, tmp_path / "pieces.pt", minutes=0.0) for _ in range(3)]

    assert [run.step for run in pieces] == [1, 2, 3]
    for name, weights in whole.average.state_dict().items():
        torch.testing.assert_close(pieces[-1].average.state_dict()[name], weights, rtol=0, atol=0)


def test_the_state_of_a_run_with_other_settings_is_refused(
    utterances: list[Utterance], threads: None, tmp_path: Path
) -> None:
    trained(utterances, tmp_path / "state.pt")

    with pytest.raises(SystemExit, match="other settings"):
        Run(SMALL, replace(SHORT, batch=5), tmp_path / "state.pt")


def test_features_that_are_the_phones_find_every_phone_and_features_that_are_the_speaker_tell_who_speaks() -> None:
    phones = [torch.randint(3, 10, (200,), generator=torch.Generator().manual_seed(n)) for n in range(3)]
    perfect = [torch.nn.functional.one_hot(said, 42).float() for said in phones]
    identity = [torch.full((200, 4), float(n)) for n in range(3)]

    assert nearest_phone(perfect, phones) == 1.0
    assert nearest_phone(identity, phones) < 0.5
    assert speaker_told_apart(identity) == 1.0
