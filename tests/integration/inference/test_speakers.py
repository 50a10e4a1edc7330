"""A voice of several people speaks as the one that is asked for, to each caller and in jobs; others are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from libs.audio.decode import decode
from libs.common.events import ConversionInput, ConvertRecordings
from libs.common.jobs import Step
from libs.common.manifests import sha256_of
from libs.common.paths import Paths
from libs.voice.artefact import write_voice
from libs.voice.recipe import build_recipe
from libs.voice.training_config import TrainingConfig
from services.inference import models
from services.inference.job_files import FileRecord, JobFiles
from services.inference.jobs import convert_all
from services.inference.voices import Voices as Loaded
from tests.comparing import SAME, apart, samples
from tests.factories_audio import make_speech
from tests.integration.inference.conftest import Serve
from tests.integration.inference.test_conversions import convert
from tests.integration.inference.voice_factory import Voices, stage

SPEAKERS = 3


@pytest.fixture
def choir(voices: Voices, tmp_path: Path) -> None:
    """The voice `choir`, of three people who sound different, and `lisa`, who is alone."""
    torch.manual_seed(0)
    weights, config = build_recipe("lite", TrainingConfig(preset="lite"), speakers=SPEAKERS).export()
    for name in ("head.weight", "tints.first.weight", "tints.last.weight"):
        weights[name] = 0.3 * torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(1))
    write_voice(tmp_path / "choir.pth", weights, config)
    voices.publish("choir", "job_1", files=(tmp_path / "choir.pth", voices.files(0)[1]), native=True)
    voices.publish("lisa", "job_1", preset="lite")


@pytest.mark.usefixtures("choir")
async def test_each_number_is_somebody_else_and_a_number_of_nobody_is_refused(
    client: httpx.AsyncClient, speech: str
) -> None:
    answers = [await convert(client, speech, "choir", speaker_id=speaker) for speaker in (0, 1, 2, 1)]
    refused = {
        (voice, speaker): await convert(client, speech, voice, speaker_id=speaker)
        for voice, speaker in (("choir", 3), ("lisa", 1))
    }

    assert [answer.status_code for answer in answers] == [200] * 4
    zero, one, two, again = (samples(answer.content) for answer in answers)
    assert apart(one, again) <= SAME
    assert min(apart(zero, one), apart(one, two), apart(zero, two)) > 100 * SAME
    for (_, speaker), answer in refused.items():
        problem = answer.json()
        assert (answer.status_code, problem["field"]) == (422, "speaker_id")
        assert problem["detail"].startswith(f"speaker_id is {speaker}; this voice has 0 to ")
    assert refused["choir", 3].json()["detail"].endswith("0 to 2")
    assert refused["lisa", 1].json()["detail"].endswith("0 to 0")


@pytest.mark.usefixtures("choir")
async def test_callers_of_one_turn_each_hear_whom_they_asked_for(serve: Serve, paths: Paths, tmp_path: Path) -> None:
    uploads = [
        stage(paths, f"upl_{i}", make_speech(1.2 + 0.3 * i, "en-us", tmp_path / f"speech{i}.wav")) for i in range(3)
    ]
    wishes: list[dict[str, Any]] = [{"speaker_id": speaker} for speaker in (2, 0, 1)]
    async with serve() as client:
        alone = [await convert(client, upload, "choir", **wish) for upload, wish in zip(uploads, wishes, strict=True)]

    async with serve(conversions_at_once=1, inference_batch_requests=8) as client:
        calls = [convert(client, upload, "choir", **wish) for upload, wish in zip(uploads, wishes, strict=True)]
        answers = await asyncio.gather(*calls, convert(client, uploads[0], "choir", speaker_id=99))

    assert [answer.status_code for answer in answers] == [200, 200, 200, 422]
    for answer, expected in zip(answers, alone, strict=False):
        assert apart(samples(answer.content), samples(expected.content)) <= SAME


@pytest.mark.usefixtures("choir")
def test_a_job_speaks_as_whom_it_was_told_and_fails_by_name_for_nobody(
    paths: Paths, speech: str, tmp_path: Path
) -> None:
    original = paths.staged_upload(speech).original
    sha256 = sha256_of(original)
    kept = paths.job_uploads("job_9").original(sha256, "wav")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(original.read_bytes())
    loaded = Loaded(paths, capacity=2)

    def job(speaker: int) -> list[FileRecord]:
        command = ConvertRecordings(
            job_id="job_9",
            step=Step.convert,
            experiment="job_9",
            voice="choir",
            inputs=(ConversionInput(number=1, name="a.wav", sha256=sha256, extension="wav", seconds=2.0),),
            settings={"speaker_id": speaker},
        )
        folder = paths.job_uploads("job_9").folder / f"as-{speaker}"
        files = JobFiles.of(paths, "job_9", folder, [])
        return convert_all(
            command, files, loaded, report=lambda *_, **__: None, mark=lambda _: None, should_stop=lambda: False
        )

    waves = {}
    for speaker in (0, 2):
        (record,) = job(speaker)
        assert record.sound is not None
        waves[speaker] = decode(paths.in_data(record.sound)).wave
    assert np.abs(waves[0] - waves[2]).max() > 0.01
    with pytest.raises(Exception, match=r"speaker_id is 3; this voice has 0 to 2"):
        job(3)


@pytest.mark.usefixtures("choir")
def test_it_is_told_as_how_many_a_voice_can_speak(paths: Paths) -> None:
    told = {slug: models.facts(paths.voice(slug).version("job_1"))["speakers"] for slug in ("choir", "lisa")}

    assert told == {"choir": SPEAKERS, "lisa": 1}
