"""With which weights a `lite` voice begins: the packaged ones where they fit, and none where they do not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import torch

from libs.common.errors import Conflict, InvalidInput, Preempted
from libs.voice.artefact import read_voice, write_voice
from libs.voice.content_small import SmallContentEncoder
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_recipe import LiteRecipe
from libs.voice.lite_start import begin_with, packaged_start, start_for
from libs.voice.pitch import Pitch
from libs.voice.recipe import Batch
from libs.voice.training import StopReason, TrainingInputs, TrainingResult, train
from libs.voice.training_bases import with_bases
from libs.voice.training_config import PRESETS, TrainingConfig
from tests.factories_audio import speech
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import different, ignore

CONFIG = TrainingConfig(preset="lite", total_steps=3, threads=1, batch_size=2, early_stopping_patience=0)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoder() -> str:
    return SmallContentEncoder().checksum


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rate = PRESETS["lite"].sample_rate
    return make_experiment(tmp_path_factory.mktemp("experiment"), sources=4, pieces=1, seconds=0.6, rate=rate)


@pytest.fixture(scope="module")
def tuned(experiment: Path, encoder: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainingResult]:
    folder = tmp_path_factory.mktemp("tuned")
    return folder, train(TrainingInputs(experiment, folder, encoder=encoder), CONFIG, ignore)


def recipe(start: Path | None) -> LiteRecipe:
    torch.manual_seed(0)
    return LiteRecipe(dataclasses.replace(CONFIG, pretrained_generator=str(start) if start else None), CPU)


def test_the_packaged_weights_are_what_their_sidecar_says_and_small() -> None:
    path = packaged_start()
    card = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))

    voice = read_voice(path)

    assert card["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert card["bytes"] == path.stat().st_size <= 10_000_000
    assert (voice.kind, voice.form) == ("lite", "safetensors")
    assert voice.content_encoder == card["content_encoder"]
    assert "CC BY 4.0" in card["data"]
    assert not set(card["held_out_speakers"]) & {"LJ"}


def test_they_are_for_features_of_the_packaged_encoder_alone(encoder: str) -> None:
    assert start_for(encoder) == packaged_start()
    assert start_for("0" * 64) is None
    assert start_for(None) is None


def test_a_training_begins_with_them_and_says_so_unless_none_are_wanted(
    experiment: Path, encoder: str, tuned: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    plain = dataclasses.replace(CONFIG, pretrained="none")
    without = train(TrainingInputs(experiment, tmp_path / "none", encoder=encoder), plain, ignore)
    unknown = train(TrainingInputs(experiment, tmp_path / "unknown"), CONFIG, ignore)

    sha256 = hashlib.sha256(packaged_start().read_bytes()).hexdigest()
    assert tuned[1].bases == {"generator": {"file": packaged_start().name, "sha256": sha256}}
    assert without.bases == unknown.bases == {}
    assert without.sha256 == unknown.sha256 != tuned[1].sha256


def test_a_run_that_was_stopped_ends_with_the_weights_of_an_unbroken_one(
    experiment: Path, encoder: str, tuned: tuple[Path, TrainingResult], tmp_path: Path
) -> None:
    inputs = TrainingInputs(experiment, tmp_path, encoder=encoder)
    asked = iter([None, None, None, StopReason.PREEMPT])

    with pytest.raises(Preempted):
        train(inputs, CONFIG, ignore, lambda: next(asked))
    result = train(inputs, CONFIG, ignore)

    assert result.resumed_from is not None
    assert result.bases == tuned[1].bases
    assert different(tuned[0], tmp_path) == []


def test_a_run_that_began_elsewhere_takes_the_packaged_weights_from_here(encoder: str) -> None:
    plan = {"base_files": {"generator": f"/another/machine/{packaged_start().name}"}}

    found = with_bases(CONFIG, None, plan, encoder=encoder, has_checkpoint=False)

    assert found.pretrained_generator == str(packaged_start())


def test_a_run_does_not_go_on_with_other_weights_than_it_began_with(
    experiment: Path, encoder: str, tmp_path: Path
) -> None:
    inputs = TrainingInputs(experiment, tmp_path, encoder=encoder)
    with pytest.raises(Preempted):
        train(inputs, CONFIG, ignore, iter([None, None, StopReason.PREEMPT]).__next__)
    plan = json.loads((tmp_path / "run.json").read_text())
    plan["bases"]["generator"]["sha256"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(plan))
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        checkpoint.rename(tmp_path / checkpoint.name)

    with pytest.raises(Conflict, match="base has changed"):
        train(inputs, CONFIG, ignore)


def test_weights_of_another_shape_and_missing_files_are_refused_by_name(tmp_path: Path) -> None:
    small = LiteSynthesizer(LiteConfig(width=16, hidden=32, blocks=1))
    write_voice(tmp_path / "small.pth", dict(small.state_dict()), {"kind": "lite", **small.config.as_dict()})

    for name in ("small.pth", "missing.safetensors"):
        with pytest.raises(InvalidInput, match=name) as caught:
            begin_with(LiteSynthesizer(LiteConfig(loudness=1)), tmp_path / name)
        assert caught.value.field == "pretrained_generator"


def test_a_voice_of_nobody_is_nearer_to_speech_than_random_weights_are_after_steps(encoder: str) -> None:
    low, high = (speech(3.0, "en-us+f3", rate=rate) for rate in (16_000, 24_000))
    content, f0 = SmallContentEncoder().encode(low), Pitch().f0(low)
    frames = 280
    batch = Batch(
        torch.from_numpy(content).repeat_interleave(2, dim=0)[None, :frames],
        torch.from_numpy(f0).float()[None, :frames],
        torch.ones(1, frames, dtype=torch.int64),
        torch.from_numpy(high[None, : frames * 240]),
        torch.tensor([frames]),
        torch.zeros(1, dtype=torch.int64),
        0,
        (1,),
    )
    random = recipe(None)
    random.prepare(100, 10)
    for _ in range(3):
        random.step(batch)

    at_once = recipe(start_for(encoder)).validate(batch)

    assert at_once["log_spectrum"] < random.validate(batch)["log_spectrum"] - 0.3
