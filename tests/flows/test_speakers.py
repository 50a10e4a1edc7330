"""Two people in one dataset become one voice, which is asked for each of them by a number."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from libs.client.errors import ApiProblem
from tests.factories_audio import make_recordings, make_speech
from tests.flows.conftest import Platform

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LOW, HIGH = "en-us+m7", "en-us+f4"
Wave = npt.NDArray[np.float32]


@dataclass
class Choir:
    """A dataset with twelve seconds of a low man, speaker 0, and of a high woman, speaker 1."""

    dataset: str
    files: tuple[list[Path], list[Path]]


@pytest.fixture(scope="module")
def choir(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Choir:
    folder = tmp_path_factory.mktemp("choir")
    dataset = platform.client.ensure_dataset("Choir")
    files = [make_recordings(folder / voice, count=2, seconds=6.0, voice=voice) for voice in (LOW, HIGH)]
    platform.client.upload([path for both in files for path in both], dataset.id)
    sent = platform.client.upload(files[1], dataset.id, speaker_id=1)
    assert [(sample.speaker_id, sample.duplicate) for sample in sent.samples] == [(1, True)] * 2
    return Choir(dataset.id, (files[0], files[1]))


def converted(platform: Platform, source: Path, voice: str, target: Path, speaker: int) -> Wave:
    platform.client.convert(source, voice, target, speaker_id=speaker, seed=1, index_rate=0)
    wave, _ = soundfile.read(target, dtype="float32")
    return np.asarray(wave, np.float32)


def apart(first: Wave, second: Wave) -> float:
    """The level of their difference over that of the first."""
    return float(np.sqrt(np.mean((first - second) ** 2) / np.mean(first**2)))


def timbre(file: Path) -> npt.NDArray[np.float64]:
    """Mean levels in dB of 24 bands from 400 to 7000 Hz, equally wide in octaves: above most of what pitch decides."""
    wave, rate = soundfile.read(file, dtype="float64")
    window = rate // 20
    frames = np.lib.stride_tricks.sliding_window_view(wave, window)[:: window // 2]
    power = np.abs(np.fft.rfft(frames * np.hanning(window))) ** 2
    loud = power[power.sum(axis=1) > 0.1 * power.sum(axis=1).mean()].mean(axis=0)
    hertz = np.fft.rfftfreq(window, 1 / rate)
    edges = np.geomspace(400, 7000, 25)
    bands = [loud[(low <= hertz) & (hertz < high)].sum() for low, high in pairwise(edges)]
    levels = 10 * np.log10(np.array(bands) + 1e-12)
    return np.asarray(levels - levels.mean())


def test_a_dataset_says_whose_what_is_from_the_answer_to_the_list_that_is_trained_on(
    platform: Platform, choir: Choir
) -> None:
    prepared = platform.finished(platform.client.add_preprocess_job(choir.dataset).id)
    assert prepared.status == "completed", prepared.error

    dataset = platform.client.find_dataset(choir.dataset)
    checked = platform.api("POST", f"/datasets/{choir.dataset}/validate").json()
    to_speak = platform.api("POST", f"/datasets/{choir.dataset}/validate?preset=xtts-v2").json()

    assert dataset is not None
    shares = [(share.speaker_id, share.recordings, round(share.seconds)) for share in dataset.speakers]
    lines = (platform.stack.root / "data" / dataset.slug / "filelist.txt").read_text().splitlines()
    assert shares == [(0, 2, 12), (1, 2, 12)]
    assert [share["seconds"] for share in checked["speakers"]] == [share.seconds for share in dataset.speakers]
    assert checked["valid"] is True, checked["problems"]
    assert to_speak["problems"][0]["field"] == "speaker_id"
    assert {line.rsplit("|", 1)[1] for line in lines} == {"0", "1"}


@pytest.mark.parametrize(("preset", "steps"), [("lite", 60), ("rvc-tiny", 20)])
def test_a_voice_of_two_people_sounds_as_each_of_them_and_as_nobody_else(
    platform: Platform, choir: Choir, tmp_path: Path, preset: str, steps: int
) -> None:
    source = make_speech(3.0, "en-us+m3", tmp_path / "source.wav", seed=9)

    job = platform.client.add_training_job(choir.dataset, name=preset, preset=preset, total_steps=steps, seed=3)
    job = platform.finished(job.id, seconds=900)
    assert job.status == "completed", job.error
    assert job.voice is not None
    first, again = (converted(platform, source, job.voice, tmp_path / f"{n}.wav", 0) for n in range(2))
    second = converted(platform, source, job.voice, tmp_path / "second.wav", 1)
    speakers = platform.client.inspect_voice(job.voice).speakers
    assert speakers is not None
    with pytest.raises(ApiProblem) as refused:
        converted(platform, source, job.voice, tmp_path / "nobody.wav", speakers)

    assert first.shape == again.shape == second.shape
    assert apart(first, second) > 0.01
    assert apart(first, again) < 0.001  # now and then a sample of 16 bits is rounded the other way
    assert speakers >= 2
    assert (refused.value.status, refused.value.problem.field) == (422, "speaker_id")
    assert f"speaker_id is {speakers}" in refused.value.problem.detail
    card = json.loads((platform.stack.root / "models" / job.voice / "voice.json").read_text())
    assert card["training"]["speakers"] == [0, 1]
    if preset == "lite":  # twenty steps teach the other nothing yet
        # What the second adds to the first is what the woman's timbre adds to the man's. Measured: 0.64.
        made = timbre(tmp_path / "second.wav") - timbre(tmp_path / "0.wav")
        man, woman = (np.mean([timbre(path) for path in files], axis=0) for files in choir.files)
        assert np.corrcoef(made, woman - man)[0, 1] > 0.3
