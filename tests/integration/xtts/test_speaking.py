"""Does a published voice speak, with the real library in a process of its own?"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.common.paths import Paths
from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from services.trainer import voice_files
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import served
from tests.integration.xtts.conftest import ROOT
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.xtts, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def made(xtts_python: str, xtts_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of a voice that stops by itself."""
    made = tmp_path_factory.mktemp("voice") / "made"
    subprocess.run(
        [xtts_python, "-m", "tests.xtts_voice", "voice", str(xtts_base), str(made)],
        cwd=ROOT,
        check=True,
        timeout=300,
        capture_output=True,
    )
    return made


@pytest.fixture
async def client(xtts_python: str, made: Path, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """Inference with the voice `linda`."""
    settings = InferenceSettings(
        service_token=TOKEN,
        data_root=tmp_path / "data",
        models_root=tmp_path / "models",
        xtts_python=Path(xtts_python),
        inference_threads=2,
        conversion_jobs_at_once=0,
        speech_attempts=10,
        log_files=False,
    )
    voice = Paths(settings).voice("linda")
    version = voice.version("job_1")
    others = [path for path in sorted(made.iterdir()) if path.name != "voice.pth"]
    card = {
        "kind": "xtts",
        "language": "en",
        "languages": ["en", "de"],
        "weights": voice_files.file_facts(version.weights.name, made / "voice.pth"),
        "index": None,
        "files": [voice_files.file_facts(path.name, path) for path in others],
    }
    voice_files.assemble(version, made / "voice.pth", None, card, others)
    voice_files.serve(voice, version, card, 1)
    async with (
        served(create_app(settings)) as url,
        httpx.AsyncClient(
            base_url=url, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=5 * PATIENCE, trust_env=False
        ) as client,
    ):
        yield client


async def test_a_text_becomes_sound_of_a_believable_length_the_same_for_the_same_seed(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    asked = {"text": "Hello there.", "voice": "linda", "format": "flac"}

    once, again, other = [
        await client.post("/speech", json=asked | {"seed": seed, "stream": stream})
        for seed, stream in ((1, False), (1, True), (2, False))
    ]

    assert [answer.status_code for answer in (once, again, other)] == [200] * 3, once.text
    waves = []
    for number, answer in enumerate((once, again, other)):
        file = tmp_path / f"{number}.flac"
        file.write_bytes(answer.content)
        sound = decode(file, limit_seconds=30)
        assert (sound.sample_rate, 0.2 < sound.seconds < 4.0) == (24_000, True)
        waves.append(sound.wave)
    assert np.abs(waves[0]).max() > 1e-3
    assert np.array_equal(waves[0], waves[1])
    assert len(waves[0]) != len(waves[2]) or not np.allclose(waves[0], waves[2], atol=1e-4)


async def test_a_caller_that_goes_away_ends_the_sentence_and_the_next_one_is_said(client: httpx.AsyncClient) -> None:
    first = await client.post("/speech", json={"text": "Hello there.", "voice": "linda"})
    long = "And " + "so it goes on and on, " * 10
    with pytest.raises(httpx.ReadTimeout):
        await client.post("/speech", json={"text": long, "voice": "linda", "speed": 0.25}, timeout=0.3)

    async with asyncio.timeout(4 * PATIENCE):
        second = await client.post("/speech", json={"text": "Hello there.", "voice": "linda"})

    assert first.status_code == 200, first.text
    assert second.content == first.content


@pytest.fixture
def imitating(
    xtts_python: str, xtts_base: Path, tmp_path: Path
) -> tuple[Paths, Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]]:
    """Inference with a base model that stops by itself, and two staged recordings."""
    base = tmp_path / "base"
    subprocess.run(
        [xtts_python, "-m", "tests.xtts_voice", "base", str(xtts_base), str(base)],
        cwd=ROOT,
        check=True,
        timeout=300,
        capture_output=True,
    )

    def settings(**changes: Any) -> InferenceSettings:
        values: dict[str, Any] = {
            "service_token": TOKEN,
            "data_root": tmp_path / "data",
            "models_root": tmp_path / "models",
            "xtts_python": Path(xtts_python),
            "xtts_path": base,
            "xtts_licence_accepted": "CPML-1.0",
            "inference_threads": 2,
            "conversion_jobs_at_once": 0,
            "speech_attempts": 10,
            "log_files": False,
        }
        return InferenceSettings(**values | changes)

    @asynccontextmanager
    async def serving(**changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            served(create_app(settings(**changes))) as url,
            httpx.AsyncClient(base_url=url, headers=headers, timeout=5 * PATIENCE, trust_env=False) as client,
        ):
            yield client

    paths = Paths(settings())
    for number, name in enumerate(("upl_a", "upl_b")):
        upload = paths.staged_upload(name)
        upload.folder.mkdir(parents=True)
        wave = (0.1 + 0.1 * number) * np.random.default_rng(number).standard_normal(4 * 22_050)
        write_wav(upload.wav, wave.astype(np.float32).clip(-1, 1), 22_050)
    return paths, serving


async def test_the_voice_of_a_recording_says_a_text_without_training(imitating: Any) -> None:
    paths, serving = imitating
    asked = {"text": "Hello there.", "language": "en", "seed": 1, "format": "flac"}

    async with serving() as client:
        first, again, other = [
            await client.post("/speech", json=asked | {"reference": upload}) for upload in ("upl_a", "upl_a", "upl_b")
        ]
        gone = await client.post("/speech", json=asked | {"reference": "upl_c"})
        klingon = await client.post("/speech", json=asked | {"reference": "upl_a", "language": "tlh"})
        neither = await client.post("/speech", json=asked)
    async with serving(xtts_licence_accepted="") as client:
        unlicensed = await client.post("/speech", json=asked | {"reference": "upl_a"})
    async with serving(xtts_path=paths.data_root) as client:
        baseless = await client.post("/speech", json=asked | {"reference": "upl_a"})

    assert [answer.status_code for answer in (first, again, other)] == [200] * 3, first.text
    assert first.content == again.content
    assert first.content != other.content
    assert first.headers["X-Voice-Version"] == "xtts-v2"
    assert (gone.status_code, neither.status_code) == (404, 404)
    assert (klingon.status_code, klingon.json()["field"]) == (422, "language")
    assert (unlicensed.status_code, baseless.status_code) == (503, 503)
    assert "XTTS_LICENCE_ACCEPTED" in unlicensed.json()["suggested_actions"][0]
    assert "fetch-assets" in baseless.json()["suggested_actions"][0]
    assert [path for path in paths.data_root.rglob("*") if "speaker" in path.name] == []
