"""May people have their own voices say texts, and nobody else's, and do they hear what stands in the way?"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.errors import Busy, InvalidInput, ProviderUnavailable, SynthesisFailed
from libs.common.paths import Paths
from libs.voice.xtts.process import SpeakingProcess
from services.gateway.accounts.tables import Role
from services.inference.app import create_app
from services.inference.settings import InferenceSettings
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import House, Person, running_house, served
from tests.integration.gateway.voices_made import make_speaking_voice, make_voice
from tests.integration.inference.speaking_voices import publish_speaking
from tests.unit import voice as unit_voice
from tests.waiting import until

ASKED = {"text": "Good morning.", "voice": "linda"}
CHILD = Path(unit_voice.__path__[0]) / "speaking_child.py"


async def test_a_text_is_said_by_a_voice_named_in_any_way(sqlite_house: House) -> None:
    house, anna = sqlite_house, await sqlite_house.person()
    voice = await make_speaking_voice(house, anna)

    answers = [
        await anna.post("/synthesize", json=ASKED | {"voice": key, "language": "de", "speed": 1.5, "format": "mp3"})
        for key in (voice.id, "linda", "Linda")
    ]

    assert [answer.status_code for answer in answers] == [200] * 3, answers[0].text
    sent = json.loads(answers[0].content.removeprefix(b"RIFF"))
    assert sent == {
        "text": "Good morning.",
        "voice": "linda",
        "language": "de",
        "speed": 1.5,
        "temperature": 0.65,
        "seed": 0,
        "format": "mp3",
        "stream": False,
        "through": None,
        "pitch_shift": 0.0,
    }
    assert answers[0].headers["X-Language"] == "en"
    assert "X-Inner" not in answers[0].headers


async def test_speech_goes_through_a_voice_that_converts(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)
    await make_voice(sqlite_house, anna)

    answer = await anna.post("/synthesize", json=ASKED | {"through": "Anna, warm", "pitch_shift": -3})

    assert answer.status_code == 200, answer.text
    assert (sqlite_house.inference.asked[0]["through"], sqlite_house.inference.asked[0]["pitch_shift"]) == (
        "anna-warm",
        -3,
    )


async def test_voices_of_others_and_voices_that_do_not_speak_are_refused(sqlite_house: House) -> None:
    house = sqlite_house
    anna, ben = await house.person("anna"), await house.person("ben")
    admin, vera = await house.person("boss", Role.admin), await house.person("vera", Role.viewer)
    await make_speaking_voice(house, anna)
    await make_voice(house, anna)

    async def refusal(person: Any, **more: Any) -> tuple[int, str | None]:
        answer = await person.post("/synthesize", json=ASKED | more)
        return answer.status_code, answer.json().get("field")

    assert await refusal(ben) == (404, "voice")
    assert await refusal(vera) == (403, None)
    assert await refusal(anna, voice="anna-warm") == (422, "voice")
    assert await refusal(anna, through="linda") == (422, "through")
    assert await refusal(anna, voice="nobody") == (404, "voice")
    assert await refusal(anna, pitch_shift=2) == (422, "pitch_shift")
    assert await refusal(anna, speed=5) == (422, "speed")
    assert await refusal(anna, volume=1) == (422, "volume")
    assert house.inference.asked == []
    assert (await admin.post("/synthesize", json=ASKED)).status_code == 200


@pytest.mark.parametrize(
    "problem",
    [
        Busy("8 texts are in hand", retry_after=7),
        InvalidInput("the text is empty", field="text"),
        SynthesisFailed("'Good morning.' could not be said"),
        ProviderUnavailable("the library that speaks is not installed", actions=("Run scripts/install-xtts.",)),
    ],
    ids=lambda problem: problem.code,
)
async def test_what_inference_says_is_passed_on(sqlite_house: House, problem: Any) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)
    sqlite_house.inference.problem = problem

    answer = await anna.post("/synthesize", json=ASKED)

    said = answer.json()
    assert (answer.status_code, said["code"], said["detail"]) == (problem.status, problem.code, problem.detail)
    assert said["suggested_actions"] == list(problem.actions)
    assert answer.headers.get("Retry-After") == ("7" if problem.code == "busy" else None)


async def test_a_caller_that_goes_away_ends_the_speech(sqlite_house: House) -> None:
    house, anna = sqlite_house, await sqlite_house.person()
    await make_speaking_voice(house, anna)
    house.inference.is_slow = True

    with pytest.raises(httpx.ReadTimeout):
        await anna.post("/synthesize", json=ASKED, timeout=0.5)

    await until(lambda: house.inference.left == 1)


@pytest.fixture
async def speaking_house(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[House]:
    """With a real inference, which a stand-in speaks for."""
    shutil.copy(migrated_sqlite, tmp_path / "gateway.db")
    settings = InferenceSettings(
        service_token=TOKEN,
        data_root=tmp_path / "data",
        models_root=tmp_path / "models",
        inference_threads=1,
        speech_waiting=12,
        conversion_jobs_at_once=0,
        log_files=False,
    )
    gate = tmp_path / "gate"
    gate.touch()
    process = SpeakingProcess(
        command=[sys.executable, str(CHILD)], environment={**os.environ, "SPEAKING_GATE": str(gate)}
    )
    for slug in ("linda", "emma"):
        publish_speaking(Paths(settings), tmp_path / slug, slug)
    async with served(create_app(settings, speaks=process)) as url:
        database = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
        async with running_house(tmp_path, database, inference_url=url) as house:
            yield house
    await process.close()


async def test_sentences_reach_the_client_while_the_next_one_is_made(speaking_house: House) -> None:
    anna = await speaking_house.person()
    await make_speaking_voice(speaking_house, anna)
    text = "This is the first sentence of two. And a slow one comes here at the end."

    heard = b""
    async with anna.http.stream(
        "POST", "/api/v1/synthesize", json={"text": text, "voice": "linda", "stream": True}
    ) as answer:
        async for piece in answer.aiter_raw():
            heard += piece
            if len(heard) > 24_000:  # half a second; the rest never comes
                break
    empty = await anna.post("/synthesize", json={"text": "🙂", "voice": "linda"})
    fails = "This is the first sentence of two. And then there is endless talk without a stop."
    with pytest.raises(httpx.RemoteProtocolError):
        await anna.post("/synthesize", json={"text": fails, "voice": "linda", "stream": True})

    assert (answer.status_code, answer.headers["content-type"]) == (200, "audio/wav")
    assert (empty.status_code, empty.json()["field"]) == (422, "text")


async def test_of_fifty_at_once_some_wait_and_hear_their_own_text_and_the_others_are_asked_back(
    speaking_house: House, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.unlink()
    house, anna, ben = speaking_house, await speaking_house.person("anna"), await speaking_house.person("ben")
    await make_speaking_voice(house, anna, "Linda")
    await make_speaking_voice(house, ben, "Emma")
    asked = [(anna, "linda", n) if n % 2 else (ben, "emma", n) for n in range(50)]

    async def say(person: Person, voice: str, number: int) -> httpx.Response:
        text = f"This is number {number} of fifty. {'And more of it. ' * (number % 5)}"
        return await person.post("/synthesize", json={"text": text, "voice": voice, "seed": number})

    calls = [asyncio.create_task(say(*each)) for each in asked]
    await until(lambda: sum(call.done() for call in calls) == 37)  # one speaks and twelve wait
    gate.touch()
    together = await asyncio.gather(*calls)
    heard = [(each, answer) for each, answer in zip(asked, together, strict=True) if answer.status_code == 200]
    alone = [await say(*each) for each, _ in heard]

    assert Counter(answer.status_code for answer in together) == {200: 13, 429: 37}
    assert {voice for (_, voice, _), _ in heard} == {"linda", "emma"}
    assert [answer.content for _, answer in heard] == [answer.content for answer in alone]
    for (_, voice, _), answer in heard:
        weights = sha256(f"{voice} job_1".encode()).hexdigest()
        assert answer.headers["X-Voice-Sha256"] == weights
    refused = [answer for answer in together if answer.status_code == 429]
    assert all(int(answer.headers["Retry-After"]) >= 1 and answer.json()["code"] == "busy" for answer in refused)


@pytest.mark.parametrize(
    ("more", "status", "field", "words"),
    [
        ({"text": ""}, 422, "text", "empty"),
        ({"text": " \n\t"}, 422, "text", "empty"),
        ({"text": "🙂🎉"}, 422, "text", "no word"),
        ({"text": "a" * 100_000}, 422, "text", "100000 characters"),
        ({"text": "word " * 20_000}, 422, "text", "5000"),
        ({"text": "שלום עולם"}, 422, "text", "U+05E9"),
        ({"text": "مرحبا"}, 422, "text", "U+0645"),
        ({"text": "Hello.", "language": "tlh"}, 422, "language", "does not speak 'tlh'"),
        ({"text": "Hello.", "language": "it"}, 422, "language", "does not speak 'it'"),
        ({"text": "Hello 🙂, here I am."}, 200, None, ""),
        ({"text": "\u202eHello, here I am.\u202c"}, 200, None, ""),
    ],
    ids=[
        "empty",
        "blank",
        "emoji",
        "100000",
        "many words",
        "hebrew",
        "arabic",
        "klingon",
        "italian",
        "smile",
        "turned",
    ],
)
async def test_texts_that_voices_are_tried_with_are_said_or_refused_with_the_reason(
    speaking_house: House, more: dict[str, Any], status: int, field: str | None, words: str
) -> None:
    anna = await speaking_house.person()
    await make_speaking_voice(speaking_house, anna)

    answer = await anna.post("/synthesize", json={"voice": "linda"} | more)

    assert answer.status_code == status, answer.text
    if field:
        assert (answer.json()["field"], words in answer.json()["detail"]) == (field, True), answer.text
        assert answer.json()["suggested_actions"]
    else:
        assert int(answer.headers["X-Characters-Left-Out"]) >= 1
        assert answer.content.startswith(b"RIFF")


async def test_a_voice_that_is_deleted_while_it_speaks_ends_its_text_and_is_then_gone(speaking_house: House) -> None:
    house, anna = speaking_house, await speaking_house.person()
    await make_speaking_voice(house, anna)
    text = "This is the first sentence of two. And this is the second one of them."

    async with anna.http.stream(
        "POST", "/api/v1/synthesize", json={"text": text, "voice": "linda", "stream": True}
    ) as answer:
        pieces = answer.aiter_raw()
        heard = await anext(pieces)
        deleted = await anna.delete("/models/linda")
        heard += b"".join([piece async for piece in pieces])
    after = await anna.post("/synthesize", json=ASKED)

    assert (answer.status_code, deleted.status_code) == (200, 204)
    assert len(heard) > 2 * 24_000 * 3
    assert (after.status_code, after.json()["field"]) == (404, "voice")
    assert not house.parts.paths.voice("linda").folder.exists()
