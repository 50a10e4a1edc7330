"""Texts over HTTP: formats, streaming, refusals, the queue. What speaks is a stand-in with the true protocol."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from prometheus_client import REGISTRY

from libs.audio.decode import decode
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from libs.voice.xtts.process import SpeakingProcess
from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import served
from tests.integration.inference.speaking_voices import publish_speaking
from tests.integration.inference.voice_factory import Voices
from tests.unit import voice as unit_voice
from tests.waiting import PATIENCE, until

CHILD = Path(unit_voice.__path__[0]) / "speaking_child.py"
TEXT = "Printing differs from most arts, as we know. It has a history of its own, and a long one."
Serve = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def serve(settings: CommonSettings, paths: Paths, tmp_path: Path) -> Serve:
    """Inference on a socket, because a client must be able to go away, with a voice that speaks."""

    @asynccontextmanager
    async def serving(mode: str = "", gate: str = "", **changes: Any) -> AsyncIterator[httpx.AsyncClient]:
        publish_speaking(paths, tmp_path / "scratch")
        values = {"inference_threads": 1, "conversion_jobs_at_once": 0, **settings.model_dump(), **changes}
        own = InferenceSettings(**{k: v for k, v in values.items() if k in InferenceSettings.model_fields})
        process = SpeakingProcess(
            command=[sys.executable, str(CHILD)],
            environment={**os.environ, "SPEAKING_CHILD": mode, "SPEAKING_GATE": gate},
        )
        app = create_app(own, speaks=process)
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            served(app) as url,
            httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE, trust_env=False) as client,
        ):
            yield client
        await process.close()

    return serving


async def speak(client: httpx.AsyncClient, text: str = TEXT, voice: str = "linda", **more: Any) -> httpx.Response:
    return await client.post("/speech", json={"text": text, "voice": voice, **more})


async def test_every_format_comes_out_whole_and_while_it_is_made(serve: Serve, tmp_path: Path) -> None:
    types = {"wav": "audio/wav", "flac": "audio/flac", "mp3": "audio/mpeg", "ogg": "audio/ogg", "opus": "audio/ogg"}
    async with serve() as client:
        answers = {
            (name, stream): await speak(client, format=name, stream=stream) for name in types for stream in (0, 1)
        }
        pcm = await speak(client, format="pcm")

    seconds = float(answers["wav", 0].headers["X-Duration-Seconds"])
    for (name, stream), answer in answers.items():
        assert (answer.status_code, answer.headers["content-type"]) == (200, types[name]), answer.text
        assert ("content-length" in answer.headers) is not bool(stream)
        file = tmp_path / f"{stream}.{name}"
        file.write_bytes(answer.content)
        sound = decode(file, limit_seconds=30)
        assert sound.seconds == pytest.approx(seconds, abs=0.15)
        assert float(np.abs(sound.wave).max()) > 0.1
    assert len(pcm.content) / 2 / 24_000 == pytest.approx(seconds, abs=0.01)
    headers = answers["mp3", 1].headers
    assert (headers["X-Voice-Version"], headers["X-Language"], headers["X-Sample-Rate"]) == ("job_1", "en", "24000")


async def test_the_first_sentence_is_sent_while_the_second_is_made(serve: Serve) -> None:
    text = "This is the first sentence of two. And a slow one comes here at the end."
    async with (
        serve() as client,
        client.stream("POST", "/speech", json={"text": text, "voice": "linda", "stream": True}) as answer,
    ):
        heard = b""
        async for piece in answer.aiter_raw():
            heard += piece
            if len(heard) > 24_000:  # more than half a second
                break

    assert answer.status_code == 200
    assert heard.startswith(b"RIFF")


async def test_a_caller_that_goes_away_leaves_its_place_to_the_next(serve: Serve) -> None:
    async with serve(speech_waiting=0) as client:

        async def is_free() -> bool:
            return (await speak(client, "Hello there.")).status_code == 200

        for stream in (False, True):
            asked = {"text": "A slow one.", "voice": "linda", "stream": stream}
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/speech", json=asked, timeout=0.5)
            await until(is_free)


async def test_who_comes_when_too_many_wait_is_told_when_to_come_back(serve: Serve, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with serve(gate=str(gate), speech_waiting=3) as client:
        calls = [asyncio.create_task(speak(client, f"Number {n} says this.")) for n in range(50)]
        await until(lambda: sum(call.done() for call in calls) == 46)
        gate.touch()
        answers = await asyncio.gather(*calls)

    assert Counter(answer.status_code for answer in answers) == {200: 4, 429: 46}
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert int(refused.headers["Retry-After"]) >= 1
    assert "texts are in hand" in refused.json()["detail"]


def counted() -> dict[str, float]:
    """What Prometheus knows of texts that somebody waits for."""
    names = ("speech_seconds_count", "speech_real_time_factor_count", "speech_sound_seconds_total")
    told = {name: REGISTRY.get_sample_value(f"voicewright_{name}", {"way": "request"}) for name in names}
    for outcome in ("done", "failed", "busy", "cancelled"):
        labels = {"way": "request", "outcome": outcome}
        told[outcome] = REGISTRY.get_sample_value("voicewright_texts_total", labels)
    return {name: value or 0.0 for name, value in told.items()}


async def test_a_text_tells_how_it_ended_and_only_a_finished_one_its_times(serve: Serve) -> None:
    before = counted()

    async with serve() as client:
        whole = await speak(client)
        streamed = await speak(client, stream=True)
        with pytest.raises(httpx.ReadTimeout):
            await client.post("/speech", json={"text": "A slow one.", "voice": "linda"}, timeout=0.5)
        await until(lambda: counted()["cancelled"] == before["cancelled"] + 1)
        failed = await speak(client, "endless talk")

    assert (whole.status_code, streamed.status_code, failed.status_code) == (200, 200, 500)
    grown = {name: value - before[name] for name, value in counted().items()}
    assert grown["done"] == grown["speech_seconds_count"] == grown["speech_real_time_factor_count"] == 2
    assert abs(grown["speech_sound_seconds_total"] - 2 * float(whole.headers["X-Duration-Seconds"])) < 0.01
    assert (grown["failed"], grown["busy"], grown["cancelled"]) == (1, 0, 1)


async def test_voices_that_speak_at_the_same_time_are_not_mixed_up(serve: Serve, paths: Paths, tmp_path: Path) -> None:
    async with serve(speech_waiting=20) as client:
        publish_speaking(paths, tmp_path / "other", "emma", "job_7")
        texts = {f"{voice} says {n} {'words ' * n}": voice for n in range(1, 6) for voice in ("linda", "emma")}
        alone = {text: (await speak(client, text, voice)).content for text, voice in texts.items()}

        together = await asyncio.gather(*(speak(client, text, voice) for text, voice in texts.items()))

    assert [answer.content for answer in together] == list(alone.values())
    versions = {"linda": "job_1", "emma": "job_7"}
    assert [answer.headers["X-Voice-Version"] for answer in together] == [versions[each] for each in texts.values()]


async def test_speech_goes_through_another_voice_in_one_request(serve: Serve, voices: Voices, tmp_path: Path) -> None:
    voices.publish("anna", "job_2")
    async with serve() as client:
        plain, through = [
            await speak(client, "Hello there, it is me.", **more)
            for more in ({}, {"through": "anna", "pitch_shift": 2})
        ]
        streamed = await speak(client, "Hello there, it is me.", through="anna", stream=True)
        absent = await speak(client, through="nobody")

    assert (through.status_code, streamed.status_code) == (200, 200), through.text
    assert through.headers["X-Sample-Rate"] != "24000"
    lengths = [float(answer.headers["X-Duration-Seconds"]) for answer in (plain, through)]
    assert lengths[0] == pytest.approx(lengths[1], abs=0.15)
    file = tmp_path / "through.wav"
    file.write_bytes(streamed.content)
    assert decode(file, limit_seconds=30).seconds == pytest.approx(lengths[1], abs=0.1)
    assert absent.status_code == 404


async def test_what_cannot_be_said_is_refused_with_the_field_at_fault(
    serve: Serve, voices: Voices, paths: Paths, tmp_path: Path
) -> None:
    voices.publish("anna", "job_2")
    publish_speaking(paths, tmp_path / "away", "gina", kind="google", weights=None, files=[])
    async with serve(speech_limit=200) as client:
        answers = {
            "nobody": await speak(client, voice="nobody"),
            "converts": await speak(client, voice="anna"),
            "away": await speak(client, voice="gina"),
            "through": await speak(client, through="gina"),
            "empty": await speak(client, "  "),
            "emoji": await speak(client, "🙂"),
            "hebrew": await speak(client, "שלום"),
            "long": await speak(client, "word " * 20_000),
            "language": await speak(client, language="it"),
            "unknown": await speak(client, language="tlh"),
            "speed": await speak(client, speed=9),
            "format": await speak(client, format="aiff"),
        }
        other = await speak(client, "Guten Tag.", language="de-AT")

    said = {name: (answer.status_code, answer.json()["field"]) for name, answer in answers.items()}
    assert said == {
        "nobody": (404, "voice"),
        "converts": (422, "voice"),
        "away": (503, "voice"),
        "through": (422, "voice"),
        "empty": (422, "text"),
        "emoji": (422, "text"),
        "hebrew": (422, "text"),
        "long": (422, "text"),
        "language": (422, "language"),
        "unknown": (422, "language"),
        "speed": (422, "speed"),
        "format": (422, "format"),
    }
    assert (other.status_code, other.headers["X-Language"]) == (200, "de")
    assert "through" in answers["converts"].json()["suggested_actions"][0]


async def test_failures_of_the_voice_are_problems_also_when_the_answer_would_be_streamed(serve: Serve) -> None:
    async with serve() as client:
        answers = [await speak(client, "endless talk", stream=stream) for stream in (False, True)]
    async with serve("missing") as client:
        missing = await speak(client)

    assert [(a.status_code, a.json()["code"]) for a in answers] == [(500, "synthesis_failed")] * 2
    assert (missing.status_code, missing.json()["code"]) == (503, "provider_unavailable")
    assert "install-xtts" in missing.json()["suggested_actions"][0]


async def test_a_failure_in_the_middle_breaks_the_answer_off(serve: Serve) -> None:
    text = "This is the first sentence of two. And then there is endless talk without a stop."
    async with serve() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await speak(client, text, stream=True)

        again = await speak(client, "Everything is well again.")

    assert again.status_code == 200


async def test_a_voice_that_is_deleted_while_it_speaks_ends_its_text_and_is_then_gone(
    serve: Serve, paths: Paths
) -> None:
    async with serve() as client:
        async with client.stream("POST", "/speech", json={"text": TEXT, "voice": "linda", "stream": True}) as answer:
            shutil.rmtree(paths.voice("linda").folder)
            heard = b"".join([piece async for piece in answer.aiter_raw()])
        after = await speak(client)

    assert len(heard) > 2 * 24_000 * 4
    assert after.status_code == 404


async def test_files_that_are_not_those_of_the_card_are_not_spoken_with(serve: Serve, paths: Paths) -> None:
    async with serve() as client:
        paths.voice("linda").version("job_1").file("config.json").write_text('{"changed": true}')
        answer = await speak(client)

    assert answer.status_code == 503
    assert "config.json" in answer.json()["detail"]
