"""Is inference there for those who wait while the broker is not?"""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx

from scripts.processes import free_port
from tests.conftest import TOKEN
from tests.factories_audio import make_speech
from tests.integration.inference.voice_factory import Voices, stage
from tests.integration.voice_services.platform import Platform
from tests.waiting import PATIENCE


async def test_without_a_broker_inference_is_ready_converts_and_goes_when_it_is_asked(
    here: Platform, tmp_path: Path
) -> None:
    Voices(here.paths, tmp_path / "scratch").publish("anna", "job_1")
    here.paths.data_root.mkdir(exist_ok=True)
    stage(here.paths, "upl_speech", make_speech(1.5, "en-us", tmp_path / "speech.wav"))
    inference = await here.started("inference", NATS_URL=f"nats://127.0.0.1:{free_port()}")
    await inference.wait_for_words("bus.waiting")

    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}, timeout=60) as client:
        order = {"upload_id": "upl_speech", "voice": "anna", "f0_method": "praat"}
        answer = await client.post(f"{inference.url}/conversions", json=order)
    inference.signal(signal.SIGTERM)
    code = await asyncio.to_thread(inference.process.wait, PATIENCE)

    assert answer.status_code == 200, answer.text
    assert code in (0, -signal.SIGTERM)
