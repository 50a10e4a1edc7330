"""From recordings to a converted recording, by commands alone: the real services over a real broker."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile

from tests.conftest import TOKEN
from tests.factories_audio import make_recordings, make_speech
from tests.integration.voice_services.platform import (
    Platform,
    evaluate,
    index,
    prepare,
    publish,
    train,
)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("preset", ["rvc-tiny", "lite"])
async def test_recordings_become_a_voice_that_converts(here: Platform, tmp_path: Path, preset: str) -> None:
    inputs = here.place("anna", make_recordings(tmp_path / "in", 3, 12.0))
    for name in ("preprocessor", "trainer", "inference"):
        here.start(name)
    for service in here.services:
        await service.wait_until_ready()

    prepared = await here.send(prepare("job_1", inputs, preset=preset), "prepared", seconds=120)
    trained = await here.send(train("job_1", prepared.manifest, preset=preset, total_steps=30), "trained", seconds=180)
    indexed = await here.send(index("job_1", prepared.manifest), "indexed")
    evaluated = await here.send(
        evaluate("job_1", prepared.manifest, trained.manifest, indexed.manifest), "evaluated", seconds=120
    )
    published = await here.send(
        publish("job_1", prepared.manifest, trained.manifest, indexed.manifest, evaluated.manifest),
        "published",
        seconds=120,
    )

    source = make_speech(4.0, "en-gb", tmp_path / "source.mp3", seed=3)
    staged = here.paths.staged_upload("upl_1")
    staged.folder.mkdir(parents=True)
    shutil.copyfile(source, staged.original)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=120) as client:
        answer = await client.post(
            f"{here.services[2].url}/conversions", json={"upload_id": "upl_1", "voice": "anna", "pitch_shift": -2}
        )
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Voice-Version"] == "job_1"
    assert answer.headers["X-Voice-Sha256"] == published.weights_sha256
    wave, rate = soundfile.read(io.BytesIO(answer.content))
    assert rate == published.sample_rate
    assert abs(len(wave) / rate - 4.0) < 0.2
    assert np.sqrt(np.mean(wave**2)) > 1e-3
