"""Many voices, many versions, many callers: each answer is of exactly one version."""

from __future__ import annotations

import asyncio
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from libs.common.paths import Paths
from services.inference.voices import Voices as Loaded
from tests.comparing import SAME, apart, samples
from tests.conftest import TOKEN
from tests.factories_audio import make_speech, make_tone
from tests.integration.inference.conftest import Serve
from tests.integration.inference.voice_factory import Voices, stage
from tests.integration.voice_services.platform import Platform, resident_megabytes
from tests.waiting import PATIENCE, until

REPUBLISHED = 20


async def convert(client: httpx.AsyncClient, upload_id: str, voice: str = "anna", **wanted: Any) -> httpx.Response:
    return await client.post("/conversions", json={"upload_id": upload_id, "voice": voice, **wanted})


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_each_answer_is_wholly_of_the_version_that_its_headers_name(
    serve: Serve, paths: Paths, voices: Voices, tmp_path: Path
) -> None:
    speech = stage(paths, "upl_1", make_speech(0.8, "en-us", tmp_path / "in.wav"))
    serial: dict[str, NDArray[np.int32]] = {}
    async with serve(conversions_at_once=2) as client:
        for seed in (0, 1):
            sha256 = voices.publish("anna", f"first_{seed}", seed=seed)
            serial[sha256] = samples((await convert(client, speech)).content)
        published = {"first_1": sha256}
        answers: list[httpx.Response] = []
        is_over = asyncio.Event()

        async def keep_converting() -> None:
            while not is_over.is_set():
                answers.append(await convert(client, speech))

        async def republish() -> None:
            for number in range(REPUBLISHED):
                seen = len(answers)
                version = f"job_{number}"
                published[version] = await asyncio.to_thread(voices.publish, "anna", version, seed=number % 2)
                # two were on their way already
                await until(lambda seen=seen: len(answers) >= seen + 3)
            is_over.set()

        await asyncio.gather(keep_converting(), keep_converting(), republish())

    assert len(serial) == 2
    assert apart(*serial.values()) > 100 * SAME
    assert {answer.status_code for answer in answers} == {200}
    for answer in answers:
        sha256 = answer.headers["X-Voice-Sha256"]
        assert published[answer.headers["X-Voice-Version"]] == sha256
        assert apart(samples(answer.content), serial[sha256]) <= SAME
    assert len({answer.headers["X-Voice-Version"] for answer in answers}) > REPUBLISHED // 2
    assert answers[-1].headers["X-Voice-Version"] == f"job_{REPUBLISHED - 1}"


async def test_concurrent_callers_get_what_they_would_get_alone(serve: Serve, voices: Voices, speech: str) -> None:
    slugs = ("anna", "berta", "clara")
    for seed, slug in enumerate(slugs):
        voices.publish(slug, "job_1", seed=seed, preset="lite" if slug == "clara" else "rvc-tiny")

    async with serve() as client:
        alone = {slug: samples((await convert(client, speech, slug)).content) for slug in slugs}
    async with serve(conversions_at_once=3) as client:
        together = await asyncio.gather(*(convert(client, speech, slug) for slug in slugs * 3))

    assert all(apart(alone[one], alone[other]) > 100 * SAME for one, other in combinations(slugs, 2))
    assert all(
        apart(samples(answer.content), alone[slug]) <= SAME for answer, slug in zip(together, slugs * 3, strict=True)
    )


def test_the_voice_that_was_not_used_for_longest_is_dropped(paths: Paths, voices: Voices) -> None:
    for seed, slug in enumerate(("anna", "berta", "clara")):
        voices.publish(slug, "job_1", seed=seed)
    cache = Loaded(paths, capacity=2)

    anna, berta = cache.get("anna"), cache.get("berta")
    assert cache.get("anna") is anna
    cache.get("clara")

    assert cache.get("anna") is anna
    assert cache.get("berta") is not berta


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_work_for_a_caller_that_went_away_stops(here: Platform, tmp_path: Path) -> None:
    Voices(here.paths, tmp_path / "scratch").publish("anna", "job_1")
    long = stage(here.paths, "upl_long", make_tone(600.0, tmp_path / "long.wav", rate=16_000))
    short = stage(here.paths, "upl_short", make_tone(1.0, tmp_path / "short.wav"))
    service = await here.started("inference", CONVERSIONS_WAITING=0)
    idle = resident_megabytes(service.pid)
    headers = {"Authorization": f"Bearer {TOKEN}"}

    async with httpx.AsyncClient(
        base_url=service.url, headers=headers, timeout=httpx.Timeout(PATIENCE, read=2)
    ) as client:
        with pytest.raises(httpx.ReadTimeout):
            await convert(client, long)
    await service.wait_for_words("status=499")
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=PATIENCE) as client:
        answer = await convert(client, short)

    assert answer.status_code == 200
    assert idle < 600
