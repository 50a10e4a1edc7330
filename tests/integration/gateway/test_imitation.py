"""Is a voice imitated only when its speaker's consent is stated, is that put on record, and is nothing else kept?"""

from __future__ import annotations

from typing import Any

import httpx
from sqlalchemy import select

from libs.common.errors import ProviderUnavailable
from services.gateway.accounts.tables import Role
from services.gateway.audit.tables import AuditEntry
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.ingest_double import sound
from tests.integration.gateway.voices_made import make_speaking_voice, make_voice

FIELDS = {
    "text": "Good morning.",
    "language": "en",
    "speaker": "Anna Berg",
    "consent": "Anna Berg agreed by e-mail that her voice says our opening hours.",
}


async def _imitate(person: Person, *recordings: bytes, **more: str) -> httpx.Response:
    files: list[Any] = [("audio", ("clip.wav", content)) for content in recordings]
    fields = {name: value for name, value in (FIELDS | more).items() if value}
    return await person.post("/synthesize/reference", data=fields, files=files or {"_": (None, b"")})


async def _stated(house: House) -> list[AuditEntry]:
    async with house.database.read() as session:
        return list(await session.scalars(select(AuditEntry).where(AuditEntry.action == "consent.stated")))


async def test_the_voice_of_a_recording_speaks_its_speakers_consent_is_on_record_and_nothing_is_kept(
    house: House,
) -> None:
    anna = await house.person()
    await make_voice(house, anna)

    answer = await _imitate(anna, sound("a"), speed="1.5", format="mp3", stream="true", through="Anna, warm")
    (entry,) = await _stated(house)

    assert answer.status_code == 200, answer.text
    (asked,) = house.inference.asked
    assert asked.pop("reference")
    assert asked == {
        "text": "Good morning.",
        "language": "en",
        "speed": 1.5,
        "temperature": 0.65,
        "seed": 0,
        "format": "mp3",
        "stream": True,
        "through": "anna-warm",
        "pitch_shift": 0.0,
    }
    assert entry.actor_id == anna.id
    assert len(entry.object_id) == 64  # which recording: its checksum, for nothing of it is kept
    assert (entry.details["speaker"], entry.details["statement"]) == (FIELDS["speaker"], FIELDS["consent"])
    assert "Good morning" not in str(entry.details)
    assert house.ingest.staged == {}


async def test_without_consent_or_with_another_recording_nothing_is_said_and_nothing_kept(sqlite_house: House) -> None:
    house = sqlite_house
    anna, vera = await house.person(), await house.person("vera", Role.viewer)
    await make_speaking_voice(house, anna)

    refused = {
        "viewer": await _imitate(vera, sound("a")),
        "no consent": await _imitate(anna, sound("a"), consent=""),
        "blank": await _imitate(anna, sound("a"), consent="  \n"),
        "a yes": await _imitate(anna, sound("a"), consent="yes"),
        "nobody": await _imitate(anna, sound("a"), speaker=""),
        "no language": await _imitate(anna, sound("a"), language=""),
        "no recording": await _imitate(anna),
        "two": await _imitate(anna, sound("a"), sound("b")),
        "no sound": await _imitate(anna, b"words"),
        "voice": await _imitate(anna, sound("a"), voice="linda"),
        "through": await _imitate(anna, sound("a"), through="linda"),
        "speed": await _imitate(anna, sound("a"), speed="9"),
    }
    house.ingest.seconds = 2.9
    refused["short"] = await _imitate(anna, sound("a"))
    house.ingest.seconds = 30.1
    refused["long"] = await _imitate(anna, sound("a"))

    assert {name: (answer.status_code, answer.json().get("field")) for name, answer in refused.items()} == {
        "viewer": (403, None),
        "no consent": (422, "consent"),
        "blank": (422, "consent"),
        "a yes": (422, "consent"),
        "nobody": (422, "speaker"),
        "no language": (422, "language"),
        "no recording": (422, "audio"),
        "two": (422, "audio"),
        "no sound": (415, None),
        "voice": (422, "voice"),
        "through": (422, "through"),
        "speed": (422, "speed"),
        "short": (422, "audio"),
        "long": (413, "audio"),
    }
    assert refused["long"].json()["limit"] == 30
    assert house.inference.asked == []
    assert await _stated(house) == []
    assert house.ingest.staged == {}


async def test_what_inference_says_is_passed_on_and_the_recording_is_dropped(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    sqlite_house.inference.problem = ProviderUnavailable("the licence of the base model is not accepted")

    answer = await _imitate(anna, sound("a"))

    assert (answer.status_code, answer.json()["code"]) == (503, "provider_unavailable")
    assert sqlite_house.ingest.staged == {}
