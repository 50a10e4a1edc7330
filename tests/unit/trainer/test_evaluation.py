"""A voice of several people is tried as each of them on their own speech, and one that fails as anybody fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from libs.audio.encode import write_wav
from libs.common.errors import ModelValidationFailed
from libs.voice.artefact import write_voice
from libs.voice.content import card_of
from libs.voice.content_small import SmallContentEncoder
from libs.voice.recipe import build_recipe
from libs.voice.training_config import TrainingConfig
from services.trainer.evaluation import Spoken, Trial, try_voice
from tests.factories_audio import speech
from tests.integration.voice_services.parts import write_random_index, write_untrained


def trial(folder: Path, *loudness: float) -> Trial:
    """Of a voice that begins as the packaged one, each speaker by so many natural logs louder."""
    torch.manual_seed(0)
    start = TrainingConfig(preset="lite")
    weights, config = build_recipe("lite", start, speakers=len(loudness)).export()
    if len(loudness) > 1:
        weights["tints.last.weight"] += torch.tensor(loudness)[:, None]
    write_voice(folder / "voice.pth", weights, config)
    write_random_index(folder / "voice.index")
    spoken = []
    for speaker in range(len(loudness)):
        clips = tuple(folder / f"{speaker}_{i}.wav" for i in range(2))
        for i, clip in enumerate(clips):
            write_wav(clip, speech(2.0 + i, "en-us+f3" if speaker else "en-us", rate=16_000), 16_000)
        spoken.append(Spoken(speaker, clips[:1], clips[1:]))
    return Trial(
        weights=folder / "voice.pth",
        index=folder / "voice.index",
        spoken=tuple(spoken),
        seconds=4.0,
        hubert=folder / "hubert_base.pt",
        rmvpe=folder / "rmvpe.pt",
        f0_method="dio",
        encoder=card_of(SmallContentEncoder()),
    )


def test_each_speaker_has_measures_of_their_own_and_the_voice_their_means(tmp_path: Path) -> None:
    quality = try_voice(trial(tmp_path, 0.0, 1.5))

    zero, one = (quality["speakers"][number] for number in ("0", "1"))
    assert one["level_db"] > zero["level_db"] + 3
    assert quality["peak"] == max(zero["peak"], one["peak"])
    assert quality["level_db"] == pytest.approx((zero["level_db"] + one["level_db"]) / 2, abs=0.01)
    assert quality["similarity"] == pytest.approx((zero["similarity"] + one["similarity"]) / 2, abs=1e-4)
    assert zero["similarity"] != one["similarity"]


def test_of_one_speaker_there_is_nothing_but_the_voices_own_measures(tmp_path: Path) -> None:
    quality = try_voice(trial(tmp_path, 0.0), with_measures=False)

    assert quality.keys() == {"peak", "level_db"}


def test_a_voice_that_makes_nothing_as_one_of_them_is_refused_with_the_number(tmp_path: Path) -> None:
    heard = trial(tmp_path, 0.0, 0.0)
    write_untrained(heard.weights, preset="rvc-tiny", zeros=True)

    with pytest.raises(ModelValidationFailed, match=r"from 2\.0 s of speech of speaker 1$"):
        try_voice(replace(heard, spoken=heard.spoken[1:]), with_measures=False)
