"""Are voices found, used, exported and deleted by those whose they are?"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from typing import Any

import pytest

from libs.common.errors import Busy, Conflict, NotFound
from services.gateway.accounts.tables import Role
from services.gateway.voices import registry
from services.gateway.voices.tables import VoiceStatus
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.ingest_double import sound
from tests.integration.gateway.voices_made import CARD, JOB, make_voice, publish_voice
from tests.waiting import until


async def test_a_published_voice_is_listed_with_relative_paths_only(house: House) -> None:
    anna = await house.person()
    voice = await make_voice(house, anna)

    listed = (await anna.get("/models", params={"status": "ready"})).json()["items"]
    one = (await anna.get("/models/anna-warm")).json()

    assert [item["id"] for item in listed] == [voice.id]
    assert one["path"] == f"anna-warm/versions/{JOB}"
    assert one["training_job_id"] == JOB
    assert one["base_model"] == "lite"
    assert (one["user_id"], one["name"], one["status"]) == (anna.id, voice.name, "ready")
    assert one["created_at"] <= one["updated_at"]
    assert one["quality"] == {"similarity": 0.81}
    assert one["card"] == CARD
    assert str(house.settings.models_root) not in json.dumps(one)


async def test_publishing_twice_changes_nothing_and_a_new_version_replaces(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await make_voice(house, anna)

    async with house.database.write() as session:
        again = await publish_voice(session, anna, voice.slug)
    newer = await make_voice(house, anna, job_id="job_2")
    with pytest.raises(Conflict):
        async with house.database.write() as session:
            await publish_voice(session, ben, voice.slug, "job_3")

    assert again.version == voice.version
    assert newer.id == voice.id
    assert newer.version == voice.version + 1
    assert newer.path == "anna-warm/versions/job_2"


async def test_the_version_that_was_committed_last_is_served_whichever_is_told_first(house: House) -> None:
    anna = await house.person()
    voice = await make_voice(house, anna)

    async with house.database.write() as session:
        await publish_voice(session, anna, voice.slug, "job_3", place=300)
    async with house.database.write() as session:
        late = await publish_voice(session, anna, voice.slug, "job_2", place=200)
    async with house.database.write() as session:
        newest = await publish_voice(session, anna, voice.slug, "job_4", place=400)

    assert late.job_id == "job_3"
    assert (newest.job_id, newest.card["revision"], newest.card["version"]) == ("job_4", 400, "job_4")


async def test_a_voice_of_the_same_name_is_trained_anew_and_a_strangers_is_not(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await make_voice(house, anna)

    async with house.database.write() as session:
        own = await registry.reserve(session, owner_id=anna.id, name="Anna, warm")
        other = await registry.reserve(session, owner_id=ben.id, name="Anna, warm")

    assert own.id == voice.id
    assert other.slug.startswith("anna-warm-")
    assert (await ben.get("/models")).json()["items"][0]["status"] == "processing"


async def test_an_export_is_a_zip_with_weights_index_and_card(house: House) -> None:
    anna = await house.person()
    await make_voice(house, anna)

    answer = await anna.get("/models/anna-warm/export", params={"format": "zip"})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))

    assert answer.headers["content-type"] == "application/zip"
    assert "anna-warm.zip" in answer.headers["content-disposition"]
    assert archive.testzip() is None
    assert archive.namelist() == [f"anna-warm/{name}" for name in ("anna-warm.pth", "anna-warm.index", "voice.json")]
    assert archive.read("anna-warm/anna-warm.pth") == b"weights" * 200_000
    assert json.loads(archive.read("anna-warm/voice.json")) == CARD


async def test_an_export_of_what_is_not_there_says_so(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    voice = await make_voice(sqlite_house, anna)
    sqlite_house.parts.paths.voice(voice.slug).version(JOB).weights.unlink()
    async with sqlite_house.database.write() as session:
        await registry.reserve(session, owner_id=anna.id, name="not yet")

    lost = await anna.get("/models/anna-warm/export")
    early = await anna.get("/models/not-yet/export")
    other = await anna.get("/models/anna-warm/export", params={"format": "tar"})

    assert lost.status_code == 404
    assert early.status_code == 409
    assert early.json()["code"] == "voice_not_ready"
    assert other.status_code == 422


@pytest.mark.parametrize("by", ["id", "slug", "name"])
async def test_a_recording_is_converted_by_a_voice_named_in_any_way(house: House, by: str) -> None:
    anna = await house.person()
    voice = await make_voice(house, anna)

    answer = await anna.post(
        "/convert",
        data={"voice": getattr(voice, by), "pitch_shift": "-3", "format": "flac", "index_rate": "0.7"},
        files={"audio": ("me.wav", sound("me"))},
    )

    assert answer.status_code == 200
    assert answer.content.startswith(b"RIFF")
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-voice-version"] == "job_1"
    assert answer.headers["x-real-time-factor"] == "0.1"
    assert "x-inner" not in answer.headers
    order = house.inference.asked[0]
    assert order["voice"] == "anna-warm"
    assert order["pitch_shift"] == -3
    assert order["format"] == "flac"
    assert order["protect"] == 0.33
    await until(lambda: house.ingest.staged == {})


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({}, 422, "voice"),
        ({"voice": "nobody"}, 404, "voice"),
        ({"voice": "../../etc"}, 404, "voice"),
        ({"voice": "anna-warm", "pitch_shift": "99"}, 422, "pitch_shift"),
        ({"voice": "anna-warm", "index_rate": "nan"}, 422, "index_rate"),
        ({"voice": "anna-warm", "protect": "much"}, 422, "protect"),
        ({"voice": "anna-warm", "format": "exe"}, 422, "format"),
        ({"voice": "anna-warm", "f0_method": "../x"}, 422, "f0_method"),
        ({"voice": "anna-warm", "pitchshift": "3"}, 422, "pitchshift"),
    ],
)
async def test_a_conversion_that_cannot_be_is_refused_and_leaves_nothing(
    sqlite_house: House, fields: dict[str, str], status: int, field: str
) -> None:
    anna = await sqlite_house.person()
    await make_voice(sqlite_house, anna)

    answer = await anna.post("/convert", data=fields, files={"audio": ("me.wav", sound("me"))})

    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert sqlite_house.ingest.staged == {}
    assert sqlite_house.inference.asked == []


async def test_a_client_that_leaves_gives_its_place_at_inference_back(sqlite_house: House) -> None:
    house = sqlite_house
    anna = await house.person()
    await make_voice(house, anna)
    house.inference.is_slow = True
    sending = asyncio.create_task(
        anna.post("/convert", data={"voice": "anna-warm"}, files={"audio": ("me.wav", sound("me"))})
    )
    await until(lambda: len(house.inference.asked) == 1)

    sending.cancel()
    await until(lambda: house.inference.left == 1 and house.ingest.staged == {})

    assert sending.cancelled()
    assert house.inference.left == 1
    assert house.ingest.staged == {}


async def test_a_strangers_voice_does_not_exist(house: House) -> None:
    anna, ben, admin = await house.person("anna"), await house.person("ben"), await house.person("root", Role.admin)
    voice = await make_voice(house, anna)

    def convert(person: Person, key: str) -> Any:
        return person.post("/convert", data={"voice": key}, files={"audio": ("me.wav", sound("me"))})

    answers = [
        await ben.get("/models/anna-warm"),
        await ben.get(f"/models/{voice.id}/export"),
        await ben.patch("/models/anna-warm", json={"name": "mine"}),
        await ben.delete("/models/anna-warm"),
        await convert(ben, "anna-warm"),
        await convert(ben, "Anna, warm"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await convert(anna, "\0")).status_code == 404
    assert (await convert(admin, "anna-warm")).status_code == 200


async def test_what_inner_services_refuse_reaches_the_caller_as_it_is(sqlite_house: House) -> None:
    house = sqlite_house
    anna = await house.person()
    await make_voice(house, anna)

    def convert(data: bytes = sound("me")) -> Any:
        return anna.post("/convert", data={"voice": "anna-warm"}, files={"audio": ("me.wav", data)})

    no_sound = await convert(b"hello")
    house.inference.problem = Busy("the queue is full", retry_after=7)
    busy = await convert()
    house.inference.problem = NotFound("the voice has no weights")
    lost = await convert()
    good, house.parts.inference._client.base_url = house.parts.inference._client.base_url, "http://127.0.0.1:1"
    away = await convert()
    house.parts.inference._client.base_url = good
    none = await anna.post("/convert", data={"voice": "anna-warm"}, files={"x": (None, "y")})

    assert no_sound.status_code == 415
    assert busy.status_code == 429
    assert busy.headers["retry-after"] == "7"
    assert lost.status_code == 404
    assert away.status_code == 503
    assert away.json()["service"] == "inference"
    assert none.json()["field"] == "audio"
    await until(lambda: house.ingest.staged == {})


async def test_a_voice_that_is_not_ready_cannot_be_used(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    async with sqlite_house.database.write() as session:
        await registry.reserve(session, owner_id=anna.id, name="not yet")
        never = await registry.reserve(session, owner_id=anna.id, name="never")
        never.status = VoiceStatus.failed.value

    answer, failed = [
        await anna.post("/convert", data={"voice": slug}, files={"audio": ("me.wav", sound("me"))})
        for slug in ("not-yet", "never")
    ]

    assert (answer.status_code, failed.status_code) == (409, 409)
    assert answer.json()["code"] == failed.json()["code"] == "voice_not_ready"
    assert "Wait" in answer.json()["suggested_actions"][0]
    assert "retry" in failed.json()["suggested_actions"][0]


async def test_the_system_says_what_is_there(sqlite_house: House) -> None:
    anna = await sqlite_house.person()

    version = await sqlite_house.stranger().get("/api/v1/version")
    rooted = await sqlite_house.stranger().get("/version")
    answer = (await anna.get("/system/services")).json()
    ready = await sqlite_house.stranger().get("/readyz")

    assert version.json()["name"] == "voicewright"
    assert rooted.json() == version.json()
    states = {service["name"]: service["ok"] for service in answer["services"]}
    assert states == {
        "gateway": True,
        "broker": False,
        "ingest": True,
        "inference": False,
        "preprocessor": False,
        "trainer": False,
    }
    assert ready.status_code == 503
    assert [check["ok"] for check in ready.json()["checks"]] == [True, False]
