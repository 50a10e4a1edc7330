"""Does OpenAI's own client speak with our voices, and understand what stands in the way?"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from libs.common.errors import Busy, InvalidInput, SynthesisFailed
from services.gateway.accounts.tables import Role
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.voices_made import make_speaking_voice, make_voice

Connect = Callable[[Person | None], AbstractAsyncContextManager[AsyncOpenAI]]


@pytest.fixture
def connect(sqlite_house: House) -> Connect:
    """The client of a person, or of somebody with a made-up key."""

    @asynccontextmanager
    async def connecting(person: Person | None) -> AsyncIterator[AsyncOpenAI]:
        key = person.http.headers["authorization"].removeprefix("Bearer ") if person else "sk-made-up"
        async with AsyncOpenAI(base_url=f"{sqlite_house.url}/v1", api_key=key, max_retries=0) as client:
            yield client

    return connecting


async def test_the_client_writes_what_the_voice_says_to_a_file(
    sqlite_house: House, connect: Connect, tmp_path: Any
) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)
    file = tmp_path / "said.opus"

    async with connect(anna) as client:
        plain = await client.audio.speech.create(model="tts-1", voice="linda", input="Good morning.")
        async with client.audio.speech.with_streaming_response.create(
            model="xtts-v2", voice="Linda", input="Hello.", response_format="opus", speed=1.5
        ) as answer:
            await answer.stream_to_file(file)

    first, second = (json.loads(content.removeprefix(b"RIFF")) for content in (plain.content, file.read_bytes()))
    assert (first["text"], first["voice"], first["format"], first["stream"]) == ("Good morning.", "linda", "mp3", True)
    assert (second["text"], second["format"], second["speed"]) == ("Hello.", "opus", 1.5)


async def test_refusals_are_the_clients_own_errors(sqlite_house: House, connect: Connect) -> None:
    anna, vera = await sqlite_house.person("anna"), await sqlite_house.person("vera", Role.viewer)
    ben = await sqlite_house.person("ben")
    await make_speaking_voice(sqlite_house, anna)
    await make_voice(sqlite_house, anna)

    async def refusal(person: Person | None, **more: Any) -> openai.APIStatusError:
        asked: dict[str, Any] = {"model": "tts-1", "voice": "linda", "input": "Hello."} | more
        async with connect(person) as client:
            with pytest.raises(openai.APIStatusError) as refused:
                await client.audio.speech.create(**asked)
        return refused.value

    found = {
        "key": await refusal(None),
        "viewer": await refusal(vera),
        "stranger": await refusal(ben),
        "converts": await refusal(anna, voice="anna-warm"),
        "aac": await refusal(anna, response_format="aac"),
        "speed": await refusal(anna, speed=9.0),
        "instructions": await refusal(anna, instructions="Whisper."),
        "nameless": await refusal(anna, voice=""),
    }

    assert {name: (type(error), error.param) for name, error in found.items()} == {
        "key": (openai.AuthenticationError, None),
        "viewer": (openai.PermissionDeniedError, None),
        "stranger": (openai.NotFoundError, "voice"),
        "converts": (openai.BadRequestError, "voice"),
        "aac": (openai.BadRequestError, "response_format"),
        "speed": (openai.BadRequestError, "speed"),
        "instructions": (openai.BadRequestError, "instructions"),
        "nameless": (openai.BadRequestError, "voice"),
    }
    assert "does not speak text" in found["converts"].message
    assert sqlite_house.inference.asked == []


@pytest.mark.parametrize(
    ("problem", "kind", "param"),
    [
        (Busy("8 texts are in hand", retry_after=7), openai.RateLimitError, None),
        (InvalidInput("the text is empty", field="text"), openai.BadRequestError, "input"),
        (SynthesisFailed("'Hello.' could not be said"), openai.InternalServerError, None),
    ],
    ids=lambda value: getattr(value, "code", ""),
)
async def test_what_inference_says_reaches_the_client(
    sqlite_house: House, connect: Connect, problem: Any, kind: type[openai.APIStatusError], param: str | None
) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)
    sqlite_house.inference.problem = problem

    async with connect(anna) as client:
        with pytest.raises(kind) as refused:
            await client.audio.speech.create(model="tts-1", voice="linda", input="Hello.")

    assert problem.detail in refused.value.message
    assert (refused.value.code, refused.value.param) == (problem.code, param)
    assert refused.value.response.headers.get("retry-after") == ("7" if problem.code == "busy" else None)
