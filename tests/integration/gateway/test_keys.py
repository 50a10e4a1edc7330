"""Do programs get in with keys, no further than their scopes, and not a moment longer than they may?"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from sqlalchemy import func, select, text, update
from websockets.asyncio.client import connect

from services.gateway.accounts import users
from services.gateway.accounts.keys import AccessKey
from services.gateway.accounts.tables import Role
from services.gateway.audit.tables import AuditEntry
from services.gateway.database import utcnow
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.voices_made import make_speaking_voice, make_voice

TOKENS = "/auth/tokens"


async def _key(person: Person, *scopes: str, **more: Any) -> dict[str, Any]:
    answer = await person.post(TOKENS, json={"name": "door", "scopes": list(scopes)} | more)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def _me(house: House, token: str) -> httpx.Response:
    return await house.stranger(token).get("/api/v1/auth/me")


async def test_a_key_is_made_shown_once_listed_and_taken_back(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")

    made = await _key(anna, "use", "look")
    me = await _me(house, made["token"])
    listed = (await anna.get(TOKENS)).json()["items"]
    foreign = await ben.delete(f"{TOKENS}/{made['id']}")
    gone = [await anna.delete(f"{TOKENS}/{made['id']}") for _ in range(2)]
    after = await _me(house, made["token"])
    (left,) = (await anna.get(TOKENS)).json()["items"]

    assert made["token"].startswith("vwk_")
    assert len(made["token"]) > 40
    assert (me.status_code, me.json()["email"]) == (200, "anna@example.org")
    assert [item["id"] for item in listed] == [made["id"]]
    assert listed[0]["scopes"] == ["look", "use"]
    assert listed[0]["used_at"] is not None
    assert made["token"].startswith(listed[0]["begins_with"])
    assert made["token"] not in str(listed)
    assert (await ben.get(TOKENS)).json()["items"] == []
    assert (foreign.status_code, [answer.status_code for answer in gone]) == (404, [204, 204])
    assert (after.status_code, after.json()["reason"]) == (401, "key_revoked")
    assert left["revoked_at"] is not None
    async with house.database.read() as session:
        actions = list(await session.scalars(select(AuditEntry.action).where(AuditEntry.object_id == made["id"])))
    assert actions == ["key.created", "key.revoked"]


async def test_a_secret_is_nowhere_in_the_database(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    made = await _key(anna, "look")
    answer = await anna.post(TOKENS, json={"name": "x", "scopes": ["look"]}, headers={"Idempotency-Key": "one"})
    secrets = [made["token"], answer.json()["token"]]

    async with sqlite_house.database.read() as session:
        tables = list(await session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")))
        everything = "".join([str((await session.execute(text(f'SELECT * FROM "{table}"'))).all()) for table in tables])

    assert "key.created" in everything
    for secret in secrets:
        assert secret not in everything
        assert secret[20:] not in everything


@pytest.mark.parametrize("why", ["unknown", "expired", "locked", "password", "role", "deleted"])
async def test_a_key_ends_with_its_time_and_with_its_account(sqlite_house: House, why: str) -> None:
    house = sqlite_house
    anna = await house.person()
    token = (await _key(anna, "look"))["token"]
    before = await _me(house, token)
    change: dict[str, Any] = {"name": None, "role": None, "is_active": None, "password": None, "min_length": 8}

    match why:
        case "unknown":
            token = token[:-1] + ("a" if token[-1] != "a" else "b")
        case "expired":
            async with house.database.write() as session:
                await session.execute(update(AccessKey).values(expires_at=utcnow() - timedelta(seconds=1)))
        case "locked":
            await users.change(house.database, anna.id, actor="x", **change | {"is_active": False})
            await users.change(house.database, anna.id, actor="x", **change | {"is_active": True})
        case "password":
            await users.change(house.database, anna.id, actor="x", **change | {"password": "another long one"})
        case "role":
            await users.change(house.database, anna.id, actor="x", **change | {"role": Role.viewer})
        case "deleted":
            await users.remove(house.database, anna.id, actor="x")
    after = await _me(house, token)

    assert (before.status_code, after.status_code) == (200, 401)
    assert after.headers["www-authenticate"] == "Bearer"


async def test_what_a_key_cannot_be_is_refused_and_so_are_too_many(sqlite_house: House) -> None:
    house, anna, vera = sqlite_house, await sqlite_house.person(), await sqlite_house.person("vera", Role.viewer)
    house.settings.access_keys_per_user = 2
    key = await _key(anna, "look", "use", "make")
    program = Person("", house.stranger(key["token"]))

    wrong = {
        "no scope": await anna.post(TOKENS, json={"name": "x", "scopes": []}),
        "scope": await anna.post(TOKENS, json={"name": "x", "scopes": ["admin"]}),
        "name": await anna.post(TOKENS, json={"name": " ", "scopes": ["look"]}),
        "days": await anna.post(TOKENS, json={"name": "x", "scopes": ["look"], "lifetime_days": 0}),
        "field": await anna.post(TOKENS, json={"name": "x", "scopes": ["look"], "role": "admin"}),
        "viewer": await vera.post(TOKENS, json={"name": "x", "scopes": ["look"]}),
        "by a key": await program.post(TOKENS, json={"name": "x", "scopes": ["look"]}),
        "list by a key": await program.get(TOKENS),
        "taken back by a key": await program.delete(f"{TOKENS}/{key['id']}"),
        "ticket": await program.post("/ws/tickets"),
    }
    for_ever = await _key(anna, "look", lifetime_days=None)
    third = await anna.post(TOKENS, json={"name": "x", "scopes": ["look"]})
    await anna.delete(f"{TOKENS}/{key['id']}")
    again = await anna.post(TOKENS, json={"name": "x", "scopes": ["look"]})

    assert {name: answer.status_code for name, answer in wrong.items()} == {
        "no scope": 422,
        "scope": 422,
        "name": 422,
        "days": 422,
        "field": 422,
        "viewer": 403,
        "by a key": 403,
        "list by a key": 403,
        "taken back by a key": 403,
        "ticket": 403,
    }
    assert for_ever["expires_at"] is None
    assert (third.status_code, "2 keys" in third.json()["detail"]) == (409, True)
    assert again.status_code == 201


async def test_the_key_of_an_administrator_is_no_administrator(house: House) -> None:
    boss, anna = await house.person("boss", Role.admin), await house.person()
    await make_speaking_voice(house, anna)
    program = Person("", house.stranger((await _key(boss, "look", "use", "make"))["token"]))

    voices = (await program.get("/models")).json()["items"]
    foreign = await program.get("/models/linda")
    accounts = await program.get("/admin/users")
    me = (await program.get("/auth/me")).json()

    assert (await boss.get("/models/linda")).status_code == 200
    assert voices == []
    assert (foreign.status_code, accounts.status_code, me["role"]) == (404, 403, "creator")


async def test_openais_client_speaks_with_a_key_and_hears_when_it_is_good_for_something_else(
    sqlite_house: House,
) -> None:
    house, anna = sqlite_house, await sqlite_house.person()
    await make_speaking_voice(house, anna)
    use, look = (await _key(anna, "use"))["token"], (await _key(anna, "look"))["token"]

    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=use, max_retries=0) as client:
        said = await client.audio.speech.create(model="tts-1", voice="linda", input="Good morning.")
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key=look, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            await client.audio.speech.create(model="tts-1", voice="linda", input="Good morning.")
    async with AsyncOpenAI(base_url=f"{house.url}/v1", api_key="vwk_made-up", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError):
            await client.audio.speech.create(model="tts-1", voice="linda", input="Good morning.")

    assert said.content.startswith(b"RIFF")
    assert "scope `use`" in str(refused.value)


async def test_the_time_of_the_last_use_is_written_once_a_minute(sqlite_house: House) -> None:
    house, anna = sqlite_house, await sqlite_house.person()
    token = (await _key(anna, "look"))["token"]

    async def used() -> Any:
        async with house.database.read() as session:
            return await session.scalar(select(AccessKey.used_at))

    times = []
    for _ in range(3):
        assert (await _me(house, token)).status_code == 200
        times.append(await used())
    async with house.database.write() as session:
        await session.execute(update(AccessKey).values(used_at=utcnow() - timedelta(minutes=2)))
    await _me(house, token)

    assert len(set(times)) == 1
    assert await used() > times[0]
    async with house.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(AccessKey)) == 1


async def test_a_live_conversion_opens_with_a_key_to_use_voices_and_with_no_other(sqlite_house: House) -> None:
    house, anna = sqlite_house, await sqlite_house.person()
    await make_voice(house, anna)
    told = {}

    for scope in ("use", "look"):
        secret = (await _key(anna, scope))["token"]
        address = house.url.replace("http", "ws", 1) + "/api/v1/ws/convert"
        async with connect(address, additional_headers={"Authorization": f"Bearer {secret}"}, proxy=None) as socket:
            if scope == "use":
                await socket.send(json.dumps({"voice_id": "anna-warm", "sample_rate": 16_000, "format": "f32le"}))
            told[scope] = json.loads(await socket.recv())

    assert told["look"]["problem"]["code"] == "forbidden"
    assert "scope `use`" in told["look"]["problem"]["detail"]
    assert told["use"]["problem"]["service"] == "inference"  # it came so far; the double speaks no WebSocket
