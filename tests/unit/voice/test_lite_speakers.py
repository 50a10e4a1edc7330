"""A `lite` voice of several people: each number is one of them, a number too high is refused, a file cannot lie."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from libs.common.errors import Conflict, InvalidInput, ModelFileRefused, Preempted
from libs.common.speakers import SPEAKERS
from libs.voice.artefact import load_synthesizer, read_voice, write_voice
from libs.voice.chain import Conversion, Converter, Windows
from libs.voice.content_small import SmallContentEncoder
from libs.voice.conversion.together import Order, Outcome, convert_together
from libs.voice.lite import LiteConfig, LiteSynthesizer
from libs.voice.lite_recipe import LiteRecipe
from libs.voice.lite_speakers import TABLES, with_everybody
from libs.voice.lite_start import begin_with, packaged_start
from libs.voice.pitch import Pitch
from libs.voice.realtime import RealtimeConverter, RealtimeSettings
from libs.voice.recipe import Batch
from libs.voice.synthesizer import Clip
from libs.voice.tools import inspect_model, merge_voices, verify_voice
from libs.voice.training import StopReason, TrainingInputs, train
from libs.voice.training_config import TrainingConfig
from tests.factories_audio import speech
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import ignore

CPU = torch.device("cpu")
SMALL = LiteConfig(content_width=8, width=16, hidden=32, blocks=1, fft=512)


def voice(speakers: int, config: LiteConfig = SMALL, seed: int = 0) -> LiteSynthesizer:
    """A voice whose speakers differ."""
    torch.manual_seed(seed)
    made = LiteSynthesizer(dataclasses.replace(config, speakers=speakers)).eval().requires_grad_(False)
    for parameter in (made.head.weight, *(made.tints.parameters() if made.tints is not None else ())):
        torch.nn.init.normal_(parameter, std=0.2)
    return made


def clip(speaker: int, frames: int = 60, width: int = 8) -> Clip:
    content = torch.rand(frames, width, generator=torch.Generator().manual_seed(speaker))
    chance = torch.Generator().manual_seed(5)
    return Clip(content, torch.full((frames,), 150.0), torch.ones(frames).long(), speaker, chance, 10, frames - 10)


def sung(by: LiteSynthesizer, speaker: int, seed: int = 0) -> Tensor:
    content = torch.rand(60, by.content_width, generator=torch.Generator().manual_seed(1))
    chance = torch.Generator().manual_seed(seed)
    return by.render(content, torch.full((60,), 150.0), torch.ones(60).long(), speaker, chance)


def written(made: LiteSynthesizer, path: Path, **changed: Any) -> Path:
    """The voice in a file, with another configuration if that is asked for."""
    config = {name: value for name, value in (made.config.as_dict() | changed).items() if value is not None}
    write_voice(path, dict(made.state_dict()), {"kind": "lite", **config})
    return path


# -- the network ------------------------------------------------------------------------------------------------------


def test_a_number_is_somebody_and_the_same_one_again() -> None:
    made = voice(3)

    one, again, other = sung(made, 1), sung(made, 1), sung(made, 2)

    torch.testing.assert_close(one, again, rtol=0, atol=1e-6)
    assert float((one - other).abs().max()) > 1e-2


def test_before_anything_is_learned_all_speak_as_the_voice_that_they_begin_with(tmp_path: Path) -> None:
    base = voice(1)
    network = LiteSynthesizer(dataclasses.replace(SMALL, speakers=3)).eval()

    told = begin_with(network, written(base, tmp_path / "base.safetensors"))

    assert told["file"] == "base.safetensors"
    for speaker in range(3):
        torch.testing.assert_close(sung(network, speaker), sung(base, 0), rtol=0, atol=1e-6)


def test_a_network_begins_with_the_packaged_voice_and_with_one_of_as_many_but_not_of_other_speakers(
    tmp_path: Path,
) -> None:
    begin_with(LiteSynthesizer(LiteConfig(loudness=1, speakers=SPEAKERS)), packaged_start())
    three = voice(3)
    file = written(three, tmp_path / "three.pth")
    network = LiteSynthesizer(three.config).eval()

    begin_with(network, file)

    torch.testing.assert_close(sung(network, 2), sung(three, 2), rtol=0, atol=1e-6)
    for speakers in (1, 2):
        with pytest.raises(InvalidInput, match="shape") as caught:
            begin_with(LiteSynthesizer(dataclasses.replace(SMALL, speakers=speakers)), file)
        assert caught.value.field == "pretrained_generator"


def test_several_speakers_change_nothing_of_the_weights_that_one_would_have() -> None:
    networks = []
    for speakers in (1, 5):
        torch.manual_seed(3)
        networks.append(LiteSynthesizer(dataclasses.replace(SMALL, speakers=speakers)).state_dict())

    one, five = networks
    assert all(torch.equal(five[name], value) for name, value in one.items())
    assert "speakers" not in LiteConfig().as_dict()
    assert LiteConfig(speakers=2).as_dict()["speakers"] == 2


@pytest.mark.parametrize("speakers", [1, 3])
@pytest.mark.parametrize("wrong", [-1, 0])
def test_a_speaker_that_is_not_there_is_refused_with_those_who_are(speakers: int, wrong: int) -> None:
    made = voice(speakers)
    asked = wrong if wrong < 0 else speakers
    ways = [lambda: sung(made, asked), lambda: made.render_clips([clip(0), clip(asked)])]

    for way in ways:
        with pytest.raises(InvalidInput, match=f"speaker_id is {asked}; this voice has 0 to {speakers - 1}") as refused:
            way()
        assert refused.value.field == "speaker_id"


def test_clips_of_several_speakers_in_one_pass_sound_as_each_does_alone() -> None:
    made = voice(4)
    asked = [(0, 60), (3, 90), (1, 75), (3, 60)]

    together = made.render_clips([clip(speaker, frames) for speaker, frames in asked])

    for wave, (speaker, frames) in zip(together, asked, strict=True):
        torch.testing.assert_close(wave, made.render_clips([clip(speaker, frames)])[0], atol=2e-5, rtol=0)
    nobody = made.render_clips([dataclasses.replace(clip(3), speaker_id=0)])[0]
    assert float((together[3] - nobody).abs().max()) > 1e-2


# -- conversions ------------------------------------------------------------------------------------------------------


def heard() -> np.ndarray:
    return speech(2.3, "en-us+f3", rate=16_000)


def test_callers_who_want_different_speakers_share_a_turn_and_one_who_wants_nobody_is_alone_in_that() -> None:
    made = voice(3, LiteConfig(width=16, hidden=32, blocks=1, fft=512, loudness=1))
    windows = Windows(pad=0.5, query=0.5, center=1.0, longest=1.5)
    converter = Converter(made, SmallContentEncoder(), Pitch(), windows=windows, joining="smooth")
    wishes = [Conversion(seed=1, speaker_id=speaker, f0_method="dio") for speaker in (0, 2, 7, 2)]
    told: dict[int, Outcome] = {}

    convert_together(converter, [Order(heard(), 16_000, wish) for wish in wishes], told.__setitem__, most_seconds=60.0)

    refused = told.pop(2)
    assert isinstance(refused, InvalidInput)
    assert (refused.field, refused.detail) == ("speaker_id", "speaker_id is 7; this voice has 0 to 2")
    waves = {}
    for place, outcome in told.items():
        assert not isinstance(outcome, Exception), outcome
        waves[place] = outcome[0]
        alone, _ = converter.convert(heard(), 16_000, wishes[place])
        np.testing.assert_allclose(outcome[0], alone, atol=2e-5, rtol=0)
    np.testing.assert_allclose(waves[1], waves[3], atol=2e-5, rtol=0)
    assert np.abs(waves[0] - waves[1]).max() > 1e-2


def test_a_live_stream_speaks_as_whom_it_is_told_and_changes_while_it_runs() -> None:
    made = voice(2, LiteConfig(width=16, hidden=32, blocks=1, fft=512))

    def blocks(first: int, then: int) -> list[np.ndarray]:
        settings = RealtimeSettings(input_rate=16_000, speaker_id=first, f0_method="dio", seed=3)
        stream = RealtimeConverter(made, SmallContentEncoder(), Pitch(), settings=settings)
        out = []
        for i in range(6):
            if i == 3:
                stream.change(speaker_id=then)
            out.append(stream.process(heard()[i * stream.block_samples : (i + 1) * stream.block_samples]))
        with pytest.raises(InvalidInput, match="this voice has 0 to 1"):
            stream.change(speaker_id=2)
        return out

    zero, one, changed = blocks(0, 0), blocks(1, 1), blocks(0, 1)

    for i in range(6):
        assert np.abs(zero[i] - one[i]).max() > 1e-2
        assert (np.abs(changed[i] - zero[i]).max() < 1e-5) == (i < 3)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_a_file_of_several_speakers_opens_as_the_same_voice_and_says_how_many_they_are(
    tmp_path: Path, form: str
) -> None:
    made = voice(3)
    path = written(made, tmp_path / f"voice.{form}")

    opened = load_synthesizer(path)

    assert isinstance(opened, LiteSynthesizer)
    assert opened.speakers == inspect_model(path).speakers == 3
    for speaker in range(3):
        torch.testing.assert_close(sung(opened, speaker), sung(made, speaker), rtol=0, atol=1e-6)
    assert verify_voice(path).info.speakers == 3


@pytest.mark.parametrize("form", ["pth", "safetensors"])
@pytest.mark.parametrize(("held", "said"), [(3, 2), (3, None), (3, 1), (1, 2), (2, 109), (2, 110), (2, 0), (2, "2")])
def test_a_file_that_lies_about_its_speakers_is_refused(tmp_path: Path, form: str, held: int, said: Any) -> None:
    path = written(voice(held), tmp_path / f"lie.{form}", speakers=said)

    for open_it in (load_synthesizer, inspect_model, verify_voice):
        with pytest.raises(ModelFileRefused, match="speakers"):
            open_it(path)


def test_a_table_of_another_shape_is_refused_by_its_name(tmp_path: Path) -> None:
    made = voice(2)
    weights = dict(made.state_dict())
    weights["tints.last.weight"] = torch.zeros(2, 7)
    write_voice(tmp_path / "voice.pth", weights, {"kind": "lite", **made.config.as_dict()})

    with pytest.raises(ModelFileRefused, match=r"tints\.last\.weight is missing or not of shape"):
        load_synthesizer(tmp_path / "voice.pth")


def test_merged_voices_keep_the_speakers_that_both_have(tmp_path: Path) -> None:
    three, two, one = (voice(speakers, seed=speakers) for speakers in (3, 2, 1))
    files = [written(each, tmp_path / f"{each.speakers}.pth") for each in (three, two, one)]

    merge_voices(files[0], files[1], 0.25, tmp_path / "out.pth")

    merged = load_synthesizer(tmp_path / "out.pth")
    assert isinstance(merged, LiteSynthesizer)
    assert merged.tints is not None
    assert three.tints is not None
    assert two.tints is not None
    expected = 0.25 * three.tints.first.weight[:2] + 0.75 * two.tints.first.weight
    assert (merged.speakers, read_voice(tmp_path / "out.pth").config["speakers"]) == (2, 2)
    torch.testing.assert_close(merged.tints.first.weight, expected)
    with pytest.raises(InvalidInput, match="cannot be merged"):
        merge_voices(files[0], files[2], 0.5, tmp_path / "none.pth")


# -- learning ---------------------------------------------------------------------------------------------------------


def two_people(recipe: LiteRecipe, step: int, frames: int = 40) -> Batch:
    """The same words and pitch of two people: one dull, one bright."""
    time = torch.arange(frames * recipe.hop_length) / recipe.sample_rate
    dull, bright = (
        sum(torch.cos(2 * torch.pi * 150 * k * time) * k**tilt for k in range(1, 60)) for tilt in (-2.0, -0.2)
    )
    waves = torch.stack([0.1 * each / each.square().mean().sqrt() for each in (dull, bright)])
    content = torch.rand(1, frames, 768, generator=torch.Generator().manual_seed(1))
    return Batch(
        content=content.expand(2, -1, -1).clone(),
        f0_hz=torch.full((2, frames), 150.0),
        coarse=torch.full((2, frames), 60),
        wave=waves,
        lengths=torch.full((2,), frames),
        speakers=torch.tensor([2, 0]),
        step=step,
        seeds=(2 * step, 2 * step + 1),
    )


def learned(steps: int, *, parts: int = 2) -> LiteRecipe:
    torch.manual_seed(7)
    recipe = LiteRecipe(TrainingConfig(preset="lite", ema_decay=0.0), CPU, speakers=3)
    recipe.prepare(steps, 5)
    for step in range(steps):
        recipe.step(*two_people(recipe, step).split(parts))
    return recipe


def test_each_speaker_is_learned_by_their_own_number_and_a_number_of_nobody_is_the_mean_of_all() -> None:
    recipe = learned(30)
    batch = two_people(recipe, 0)

    right = recipe.validate(batch)
    wrong = recipe.validate(dataclasses.replace(batch, speakers=torch.tensor([0, 2])))

    assert right["loss"] < wrong["loss"] - 0.2
    learned_rows, exported = recipe.voice.state_dict(), recipe.export()[0]
    for name in TABLES:
        assert not learned_rows[name][1].any()
        assert torch.equal(exported[name][[0, 2]], learned_rows[name][[0, 2]])
        assert not torch.equal(exported[name][0], exported[name][2])
        torch.testing.assert_close(exported[name][1], exported[name][[0, 2]].mean(dim=0))


def test_who_is_the_only_one_is_so_by_every_number_and_an_unlearned_table_stays_as_it_is() -> None:
    alone = torch.zeros(4, 5)
    alone[3] = torch.arange(1.0, 6.0)

    assert torch.equal(with_everybody(alone), alone[3].expand(4, -1))
    assert torch.equal(with_everybody(torch.zeros(2, 5)), torch.zeros(2, 5))


def test_a_step_in_parts_of_one_speaker_each_is_the_step_of_all() -> None:
    whole, parted = learned(1), learned(1, parts=1)

    for name, parameter in whole.synthesizer.named_parameters():
        other = dict(parted.synthesizer.named_parameters())[name]
        assert parameter.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(other.grad, parameter.grad, rtol=5e-3, atol=1e-4)


CONFIG = TrainingConfig(preset="lite", total_steps=3, threads=1, batch_size=2, early_stopping_patience=0)


def test_a_run_finds_its_speakers_in_the_list_and_says_who_they_are(tmp_path: Path) -> None:
    one, three = (
        make_experiment(tmp_path / f"{speakers}", sources=6, pieces=1, seconds=0.5, rate=24_000, speakers=speakers)
        for speakers in (1, 3)
    )

    alone, together = (
        train(TrainingInputs(folder, tmp_path / f"run-{folder.name}"), CONFIG, ignore) for folder in (one, three)
    )

    assert "speakers" not in alone.as_dict()
    assert json.loads(json.dumps(together.as_dict()))["speakers"] == [0, 1, 2]
    assert inspect_model(alone.voice).speakers == 1
    assert inspect_model(together.voice).speakers == 3
    assert together.split["by"] == "source"
    assert len(together.split["held_out_sources"]) == 3
    sounds = [sung(load_synthesizer(together.voice), speaker) for speaker in range(3)]  # type: ignore[arg-type]
    assert float((sounds[0] - sounds[2]).abs().max()) > 1e-4


def test_a_run_does_not_go_on_with_other_speakers_than_it_began_with(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path / "experiment", sources=4, pieces=1, seconds=0.5, rate=24_000, speakers=2)
    asked = iter([None, None, None, StopReason.PREEMPT])
    with pytest.raises(Preempted):
        train(TrainingInputs(experiment, tmp_path / "run"), CONFIG, ignore, lambda: next(asked))
    filelist = experiment / "filelist.txt"
    filelist.write_text(filelist.read_text().replace("|1\n", "|2\n"))

    with pytest.raises(Conflict, match="dataset has changed"):
        train(TrainingInputs(experiment, tmp_path / "run"), CONFIG, ignore)
