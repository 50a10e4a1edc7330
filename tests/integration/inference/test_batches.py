"""Requests of several callers in one turn: the same sound, each one's failure its own, bounded, in order of arrival."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from libs.common.paths import Paths
from tests.comparing import SAME, apart, samples
from tests.factories_audio import make_speech, make_tone
from tests.integration.inference.conftest import Serve
from tests.integration.inference.test_conversions import convert
from tests.integration.inference.voice_factory import Voices, stage
from tests.waiting import until

Behind = Callable[..., Awaitable[list[Any]]]
TOGETHER = {"conversions_at_once": 1, "inference_batch_requests": 8}


@pytest.fixture
def uploads(paths: Paths, tmp_path: Path, voices: Voices) -> list[str]:
    """Four recordings of 1.2 to 2.4 s; the voices anna (RVC), berta (RVC) and lisa (lite) are published."""
    voices.publish("anna", "job_1", seed=1)
    voices.publish("berta", "job_1", seed=2)
    voices.publish("lisa", "job_1", seed=3, preset="lite")
    made = [make_speech(1.2 + 0.4 * i, "en-us", tmp_path / f"speech{i}.wav") for i in range(4)]
    return [stage(paths, f"upl_{i}", path) for i, path in enumerate(made)]


@pytest.fixture
def behind(gate: threading.Event) -> Behind:
    """The answers to requests that arrive in this order while the only turn is taken by a voice of nobody else."""

    async def ask(client: httpx.AsyncClient, upload: str, *requests: Coroutine[Any, Any, Any]) -> list[Any]:
        gate.clear()
        calls: list[asyncio.Task[Any]] = []
        for call in (convert(client, upload, "berta"), *requests):
            calls.append(asyncio.create_task(call))
            await until(lambda: REGISTRY.get_sample_value("voicewright_inference_in_hand_requests") == len(calls))
        gate.set()
        return (await asyncio.gather(*calls))[1:]

    return ask


async def turns(client: httpx.AsyncClient) -> dict[str, float]:
    """What is counted of turns: `sum` of requests, `count`, `retries` one by one."""
    text = (await client.get("/metrics")).text
    names = {
        "sum": r"batch_requests_sum (\d\S*)",
        "count": r"batch_requests_count (\d\S*)",
        "retries": r"batch_retries_total (\d\S*)",
    }
    found = {name: re.search("voicewright_conversion_" + pattern, text) for name, pattern in names.items()}
    return {name: float(match[1]) if match else 0.0 for name, match in found.items()}


async def counted(client: httpx.AsyncClient, work: Awaitable[Any]) -> tuple[Any, dict[str, float]]:
    before = await turns(client)
    made = await work
    after = await turns(client)
    return made, {name: after[name] - before[name] for name in after}


@pytest.mark.parametrize("voice", ["anna", "lisa"])
async def test_callers_at_once_get_what_each_gets_alone(
    serve: Serve, uploads: list[str], behind: Behind, voice: str
) -> None:
    wishes: list[dict[str, Any]] = [{"seed": 1}, {"seed": 2, "pitch_shift": 4}, {"seed": 1, "index_rate": 0}, {}]
    async with serve(inference_batch_requests=1) as client:
        alone = [await convert(client, upload, voice, **wish) for upload, wish in zip(uploads, wishes, strict=True)]

    async with serve(**TOGETHER) as client:
        requests = [convert(client, upload, voice, **wish) for upload, wish in zip(uploads, wishes, strict=True)]
        answers, said = await counted(client, behind(client, uploads[0], *requests))

    assert said == {"sum": 5, "count": 2, "retries": 0}
    for answer, expected in zip(answers, alone, strict=True):
        assert answer.status_code == expected.status_code == 200
        assert answer.headers["X-Voice-Sha256"] == expected.headers["X-Voice-Sha256"]
        assert apart(samples(answer.content), samples(expected.content)) <= SAME


async def test_one_by_one_is_what_is_done_unless_asked(serve: Serve, uploads: list[str], behind: Behind) -> None:
    async with serve() as client:
        requests = [convert(client, upload, "anna") for upload in uploads]
        answers, said = await counted(client, behind(client, uploads[0], *requests))

    assert [answer.status_code for answer in answers] == [200] * 4
    assert said["sum"] == said["count"] == 5


async def test_a_broken_request_beside_good_ones_is_refused_alone(
    serve: Serve, uploads: list[str], paths: Paths, tmp_path: Path, behind: Behind
) -> None:
    (tmp_path / "text.mp3").write_text("no sound at all " * 50)
    text = stage(paths, "upl_text", tmp_path / "text.mp3")
    blip = stage(paths, "upl_blip", make_tone(0.05, tmp_path / "blip.wav"))

    async with serve(**TOGETHER) as client:
        answers = await behind(
            client,
            uploads[0],
            convert(client, text),
            convert(client, uploads[0]),
            convert(client, blip),
            convert(client, uploads[1], speaker_id=2000),
            convert(client, uploads[1], f0_file="once upon a time"),
            convert(client, uploads[2]),
        )
        alone = [await convert(client, upload) for upload in (uploads[0], uploads[2])]

    assert [answer.status_code for answer in answers] == [415, 200, 422, 422, 422, 200]
    assert [answers[i].json()["field"] for i in (3, 4)] == ["speaker_id", "f0_file"]
    for answer, expected in zip((answers[1], answers[5]), alone, strict=True):
        assert apart(samples(answer.content), samples(expected.content)) <= SAME


async def test_voices_are_not_mixed_and_nobody_is_overtaken_for_long(
    serve: Serve, uploads: list[str], behind: Behind
) -> None:
    ended: list[str] = []

    async def named(name: str, voice: str, upload: str) -> httpx.Response:
        answer = await convert(client, upload, voice)
        ended.append(name)
        return answer

    async with serve(conversions_at_once=1, inference_batch_requests=2) as client:
        alone = {voice: samples((await convert(client, uploads[0], voice)).content) for voice in ("anna", "lisa")}
        answers, said = await counted(
            client,
            behind(
                client,
                uploads[0],
                named("anna 1", "anna", uploads[0]),
                named("lisa 1", "lisa", uploads[0]),
                named("anna 2", "anna", uploads[0]),
                named("anna 3", "anna", uploads[0]),
            ),
        )

    # anna's second goes with her first; her third, who came after lisa, waits for her
    assert ended.index("lisa 1") == 2
    assert ended[3] == "anna 3"
    assert (said["sum"], said["count"]) == (5, 4)
    for answer, voice in zip(answers, ("anna", "lisa", "anna", "anna"), strict=True):
        assert apart(samples(answer.content), alone[voice]) <= SAME


async def test_a_turn_takes_no_more_seconds_than_it_may(serve: Serve, uploads: list[str], behind: Behind) -> None:
    async with serve(**TOGETHER, inference_batch_seconds=4.5) as client:
        requests = [convert(client, uploads[3]) for _ in range(5)]  # 2.4 s each: no two fit
        short = [convert(client, uploads[0]) for _ in range(3)]  # 1.2 s each: three fit
        answers, said = await counted(client, behind(client, uploads[0], *requests))
        others, said_of_short = await counted(client, behind(client, uploads[0], *short))

    assert [answer.status_code for answer in [*answers, *others]] == [200] * 8
    assert said["count"] == 1 + 5
    assert said_of_short["count"] == 1 + 1


async def test_a_caller_who_leaves_harms_nobody(serve: Serve, uploads: list[str], gate: threading.Event) -> None:
    gate.clear()
    async with serve(**TOGETHER) as client:
        before = asyncio.create_task(convert(client, uploads[0], "berta"))
        leaving = asyncio.create_task(convert(client, uploads[3]))
        staying = [asyncio.create_task(convert(client, upload)) for upload in uploads[:2]]
        await until(lambda: REGISTRY.get_sample_value("voicewright_inference_in_hand_requests") == 4)
        gate.set()
        await before  # the turn of the three is next, or has begun
        leaving.cancel()
        answers = await asyncio.gather(*staying)
        after = await convert(client, uploads[3])

    assert [answer.status_code for answer in answers] == [200, 200]
    assert after.status_code == 200
