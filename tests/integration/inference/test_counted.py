"""What Prometheus learns of conversions: how they ended, how long they took, how much sound they made."""

from __future__ import annotations

import asyncio
import threading

import httpx
from prometheus_client import REGISTRY

from tests.integration.inference.conftest import Serve
from tests.integration.inference.voice_factory import Voices
from tests.waiting import until


def counted() -> dict[str, float]:
    """The figures of conversions that somebody waits for."""
    told = {
        outcome: REGISTRY.get_sample_value("voicewright_conversions_total", {"way": "request", "outcome": outcome})
        for outcome in ("done", "refused", "busy")
    }
    for name in ("conversion_seconds_count", "conversion_real_time_factor_count", "conversion_sound_seconds_total"):
        told[name] = REGISTRY.get_sample_value(f"voicewright_{name}", {"way": "request"})
    return {name: value or 0.0 for name, value in told.items()}


async def test_a_conversion_tells_how_it_ended_and_only_a_finished_one_its_times(
    client: httpx.AsyncClient, voices: Voices, speech: str
) -> None:
    voices.publish("anna", "job_1")
    before = counted()

    done = await client.post("/conversions", json={"upload_id": speech, "voice": "anna"})
    refused = await client.post("/conversions", json={"upload_id": speech, "voice": "nobody"})

    assert (done.status_code, refused.status_code) == (200, 404)
    grown = {name: value - before[name] for name, value in counted().items()}
    length = float(done.headers["X-Duration-Seconds"])
    assert grown["done"] == grown["conversion_seconds_count"] == grown["conversion_real_time_factor_count"] == 1
    assert abs(grown["conversion_sound_seconds_total"] - length) < 0.01
    assert grown["refused"] == 1
    assert grown["busy"] == 0


async def test_a_conversion_for_which_there_is_no_room_is_counted_as_busy(
    serve: Serve, voices: Voices, speech: str, gate: threading.Event
) -> None:
    voices.publish("anna", "job_1")
    before = counted()
    gate.clear()

    async with serve(conversions_at_once=1, conversions_waiting=0) as client:
        wanted = {"upload_id": speech, "voice": "anna"}
        calls = [asyncio.create_task(client.post("/conversions", json=wanted)) for _ in range(3)]
        await until(lambda: sum(call.done() for call in calls) == 2)
        gate.set()
        answers = await asyncio.gather(*calls)

    assert sorted(answer.status_code for answer in answers) == [200, 429, 429]
    assert counted()["busy"] == before["busy"] + 2
