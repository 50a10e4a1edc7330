"""The script that makes the start of `lite`: speech in views, steps that can be resumed, a voice that opens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from libs.voice.artefact import load_synthesizer
from libs.voice.content_small import SmallContentEncoder
from libs.voice.lite import LiteConfig
from scripts.pretrain.decoder import HEARD_HZ, NAME, ManySpeakers, Run, Training, ship
from scripts.pretrain.speakers import DISGUISES, Utterance, crops, prepare, read
from tests.factories_audio import make_speech

SHORT = Training(steps=4, batch=2, frames=60, warmup=1, held_out_every=3, threads=1)
Speech = tuple[list[Utterance], list[Utterance]]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speech")
    for speaker, voice in (("1", "en-us+f3"), ("2", "en-us+m3"), ("3", "en-us+m7")):
        make_speech(2.0, voice, folder / f"{speaker}-1-0000.flac", rate=16_000)
    assert prepare(folder, folder / "speech.npz", 24_000, seed=0) == SmallContentEncoder().checksum
    return folder / "speech.npz"


@pytest.fixture(scope="module")
def spoken(kept: Path) -> Speech:
    return read(kept, held_out_every=3)


def test_every_utterance_is_heard_as_it_is_and_through_disguises(spoken: Speech) -> None:
    learn, unseen = spoken

    assert [u.speaker for u in learn] == ["2", "3"]
    assert [(u.speaker, u.number) for u in unseen] == [("1", -1)]
    for utterance in (*learn, *unseen):
        assert utterance.content.shape[:2] == (1 + DISGUISES, utterance.frames // 2)
        assert len(utterance.wave) == 240 * utterance.frames
        plain, *others = utterance.content.astype(np.float32)
        np.testing.assert_allclose(plain.sum(axis=1), 3.0, atol=0.02)
        assert all(0.2 < np.mean(plain.argmax(1) == other.argmax(1)) < 1 for other in others)


def test_crops_depend_on_seed_and_step_alone(spoken: Speech) -> None:
    one, again, other = (crops(spoken[0], 3, 60, 768, 7, step) for step in (5, 5, 6))

    assert one.content.shape == (3, 60, 768)
    assert one.wave.shape == (3, 60 * 240)
    assert torch.equal(one.wave, again.wave)
    assert torch.equal(one.content, again.content)
    assert not torch.equal(one.wave, other.wave)


def test_a_run_in_pieces_is_the_unbroken_run_and_its_voice_opens_safely(spoken: Speech, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()

    unbroken = Run(whole, *spoken, SHORT)
    assert unbroken.go_on(None)
    assert not Run(broken, *spoken, SHORT).go_on(minutes=0.0)
    second = Run(broken, *spoken, SHORT)
    assert second.step == 1
    assert second.go_on(None)
    card = {"name": "voicewright-content-1", "checksum": "a" * 64, "width": 768}
    for run in (unbroken, second):
        ship(run, run.folder, card, "made by a test")

    assert (whole / f"{NAME}.safetensors").read_bytes() == (broken / f"{NAME}.safetensors").read_bytes()
    voice = load_synthesizer(whole / f"{NAME}.safetensors")
    frames = torch.full((30,), 150.0)
    wave = voice.render(torch.rand(30, 768), frames, frames.long(), 0, torch.Generator().manual_seed(0))
    assert torch.isfinite(wave).all()
    sidecar = json.loads((whole / f"{NAME}.json").read_text())
    assert sidecar["held_out_speakers"] == ["1"]
    assert sidecar["training"]["steps"] == 4
    assert [json.loads(line)["step"] for line in (broken / "log.jsonl").read_text().splitlines()] == [1, 4]


def test_a_state_of_other_settings_is_not_gone_on_with(spoken: Speech, tmp_path: Path) -> None:
    Run(tmp_path, *spoken, SHORT).keep()

    with pytest.raises(SystemExit, match="other settings"):
        Run(tmp_path, *spoken, dataclasses.replace(SHORT, batch=3))


def test_the_mean_speaker_says_what_the_mean_of_all_adds_and_goes_on_above_the_speech() -> None:
    network = ManySpeakers(3, SHORT, LiteConfig(loudness=1))
    torch.nn.init.normal_(network.first.weight)
    torch.nn.init.normal_(network.last.weight)
    torch.nn.init.normal_(network.decoder.head.weight)

    voice = network.mean_speaker()

    first, last = network.tint(torch.arange(3))
    content, f0 = torch.rand(1, 20, 768), torch.full((1, 20), 200.0)
    with torch.no_grad():
        alone = voice.filters(content, f0)
        together = network.decoder.filters(content, f0, None, (first.mean(0, keepdim=True), last.mean(0, keepdim=True)))
    top = round(HEARD_HZ / 24_000 * 1024)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one[:, :top], other[:, :top], atol=1e-4, rtol=1e-4)
        assert float((one[:, top:] - one[:, top : top + 1]).abs().max()) < 1e-5
