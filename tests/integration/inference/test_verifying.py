"""Is a voice that speaks tried as one, and not as one that converts? A stand-in with the true protocol speaks."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.voice.xtts.process import SpeakingProcess
from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import served
from tests.integration.inference.speaking_voices import publish_speaking
from tests.unit import voice as unit_voice
from tests.waiting import PATIENCE

CHILD = Path(unit_voice.__path__[0]) / "speaking_child.py"
Verify = Callable[..., AbstractAsyncContextManager[Callable[[str], Any]]]


@pytest.fixture
def verifying(settings: CommonSettings) -> Verify:
    """Inference; what it gives tries the version `job_1` of a voice."""

    @asynccontextmanager
    async def serving(mode: str = "") -> AsyncIterator[Callable[[str], Any]]:
        values = {"inference_threads": 1, "conversion_jobs_at_once": 0, **settings.model_dump()}
        own = InferenceSettings(**{k: v for k, v in values.items() if k in InferenceSettings.model_fields})
        process = SpeakingProcess(
            command=[sys.executable, str(CHILD)], environment={**os.environ, "SPEAKING_CHILD": mode}
        )
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            served(create_app(own, speaks=process)) as url,
            httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False) as client,
        ):

            async def verify(slug: str) -> dict[str, Any]:
                answer = await client.post(f"/voices/{slug}/versions/job_1/verify")
                assert answer.status_code == 200, answer.text
                return dict(answer.json())

            yield verify
        await process.close()

    return serving


async def test_a_voice_that_speaks_is_heard_saying_a_few_words(verifying: Verify, paths: Paths, tmp_path: Path) -> None:
    publish_speaking(paths, tmp_path / "scratch")
    publish_speaking(paths, tmp_path / "scratch", slug="damaged")
    paths.voice("damaged").version("job_1").file("vocab.json").write_text("{}")
    publish_speaking(paths, tmp_path / "scratch", slug="tongue", language="tlh")

    async with verifying() as verify:
        good, damaged, tongue = await verify("linda"), await verify("damaged"), await verify("tongue")

    assert (good["valid"], good["usable"], good["problems"]) == (True, True, [])
    assert good["peak"] > 0.1
    assert -30 < good["level_db"] < -10
    assert (damaged["valid"], damaged["usable"]) == (False, False)
    assert "vocab.json is not the file that the card names" in damaged["problems"][0]["detail"]
    assert (tongue["valid"], tongue["problems"][0]["field"]) == (False, "language")


@pytest.mark.parametrize(
    ("mode", "is_valid", "code"),
    [("mute", False, "model_validation_failed"), ("missing", True, "provider_unavailable")],
)
async def test_a_voice_that_says_nothing_is_told_from_a_library_that_is_not_here(
    verifying: Verify, paths: Paths, tmp_path: Path, mode: str, is_valid: bool, code: str
) -> None:
    publish_speaking(paths, tmp_path / "scratch")

    async with verifying(mode) as verify:
        found = await verify("linda")

    assert (found["valid"], found["usable"]) == (is_valid, False)
    assert [problem["code"] for problem in found["problems"]] == [code]


async def test_a_voice_that_lives_with_its_provider_is_compared_with_its_card_and_not_asked_there(
    verifying: Verify, paths: Paths, tmp_path: Path
) -> None:
    publish_speaking(paths, tmp_path / "scratch", kind="google", weights=None)

    async with verifying() as verify:
        found = await verify("linda")

    assert (found["valid"], found["usable"]) == (True, False)
    assert found["problems"][0]["code"] == "provider_unavailable"
    assert "spoken by google" in found["problems"][0]["detail"]
