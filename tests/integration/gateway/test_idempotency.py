"""Does a creating request that is sent twice create once?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import httpx
import pytest
from fastapi import Request, Response
from sqlalchemy import select, update

from services.gateway.accounts.current import Caller
from services.gateway.accounts.tables import Role, User
from services.gateway.database import utcnow
from services.gateway.datasets import catalogue
from services.gateway.datasets.tables import Dataset
from services.gateway.idempotency import KeptAnswer, once, reserved_id, sweep
from tests.integration.gateway.conftest import House
from tests.integration.gateway.ingest_double import sound

KEY = {"Idempotency-Key": "8e03978e-40d5-43dd-bc93-6894a57f9324"}


async def test_the_same_request_gets_the_same_answer_and_creates_once(house: House) -> None:
    anna = await house.person()

    first = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    second = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    without = await anna.post("/datasets", json={"name": "test"})

    assert first.status_code == second.status_code == 201
    assert second.content == first.content
    assert second.headers["idempotent-replayed"] == "true"
    assert second.headers["etag"] == first.headers["etag"]
    assert second.headers["location"] == first.headers["location"]
    assert "idempotent-replayed" not in first.headers
    assert without.json()["id"] != first.json()["id"]


async def test_the_key_with_another_body_or_address_is_refused(house: House) -> None:
    anna = await house.person()
    await anna.post("/datasets", json={"name": "test"}, headers=KEY)

    other = await anna.post("/datasets", json={"name": "other"}, headers=KEY)

    assert other.status_code == 422
    assert other.json()["code"] == "idempotency_key_reused"


async def test_keys_of_two_people_have_nothing_to_do_with_each_other(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")

    first = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    second = await ben.post("/datasets", json={"name": "test"}, headers=KEY)

    assert first.json()["user_id"] == anna.id
    assert second.json()["user_id"] == ben.id


async def test_while_the_first_is_at_work_the_second_is_told_so(house: House) -> None:
    anna = await house.person()
    house.ingest.claim_gate = asyncio.Event()

    def send() -> object:
        return anna.post("/samples", data={"exp_name": "t"}, files={"files": ("a.wav", sound("a"))}, headers=KEY)

    first = asyncio.ensure_future(send())
    await house.ingest.is_claiming.wait()
    second = await send()
    house.ingest.claim_gate.set()
    third = await first
    fourth = await send()

    assert second.status_code == 409
    assert second.json()["code"] == "request_in_progress"
    assert int(second.headers["retry-after"]) >= 1
    assert third.status_code == fourth.status_code == 201
    assert fourth.json() == third.json()
    assert fourth.headers["idempotent-replayed"] == "true"


async def test_an_upload_under_a_used_key_is_the_same_upload_or_is_refused(house: House) -> None:
    anna = await house.person()

    async def send(seed: str, name: str = "a.wav", **fields: str) -> httpx.Response:
        files = [("files", (name, sound(seed))), ("files", ("b.wav", sound("b")))]
        return await anna.post("/samples", data={"exp_name": "t"} | fields, files=files, headers=KEY)

    first = await send("a")
    same = await send("a")  # with another boundary
    others = [
        await send("c"),
        await send("a", exp_name="u"),
        await send("a", name="c.wav"),
        await send("a", speaker_id="1"),
    ]
    whole = await anna.get("/samples")

    assert first.status_code == same.status_code == 201
    assert same.json() == first.json()
    assert same.headers["idempotent-replayed"] == "true"
    assert [answer.status_code for answer in others] == [422] * 4
    assert {answer.json()["code"] for answer in others} == {"idempotency_key_reused"}
    assert {answer.json()["field"] for answer in others} == {"Idempotency-Key"}
    assert len(whole.json()["items"]) == 2
    assert len((await anna.get("/datasets")).json()["items"]) == 1


async def test_many_at_once_create_one(house: House) -> None:
    anna = await house.person()

    answers = await asyncio.gather(*(anna.post("/datasets", json={"name": "t"}, headers=KEY) for _ in range(8)))

    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    async with house.database.read() as session:
        assert len(list(await session.scalars(select(Dataset.id)))) == 1


async def test_a_refused_request_may_be_corrected_under_its_key(house: House) -> None:
    anna = await house.person()

    refused = await anna.post("/datasets", json={"name": ""}, headers=KEY)
    corrected = await anna.post("/datasets", json={"name": "test"}, headers=KEY)

    assert refused.status_code == 422
    assert corrected.status_code == 201


async def test_a_request_that_was_killed_before_it_answered_finds_what_it_made(house: House) -> None:
    anna = await house.person()
    first = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    async with house.database.write() as session:
        await session.execute(update(KeptAnswer).values(status=None, body=None, locked_until=utcnow()))

    again = await anna.post("/datasets", json={"name": "test"}, headers=KEY)

    assert again.status_code == 201
    assert again.json()["id"] == first.json()["id"]
    assert len((await anna.get("/datasets")).json()["items"]) == 1


async def test_a_request_that_was_cut_off_after_it_made_something_finds_it(house: House) -> None:
    anna = await house.person()
    async with house.database.read() as session:
        row = (await session.scalars(select(User).where(User.id == anna.id))).one()
    caller = Caller(id=row.id, email=row.email, name=row.name, role=Role.creator)
    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []})

    async def make(_: Request) -> Response:
        async with house.database.write() as session:
            await catalogue.create(session, caller, dataset_id=reserved_id(request, "dst"), name="test")
        raise ConnectionResetError("the database went away after it had written")

    async def make_again(_: Request) -> Response:
        async with house.database.write() as session:
            made, _ = await catalogue.create(session, caller, dataset_id=reserved_id(request, "dst"), name="test")
        return Response(made.id)

    async def send(handler: Callable[[Request], Awaitable[Response]]) -> Response:
        lock = timedelta(minutes=5)
        return await once(request, caller, "key", "print", handler, house.database, house.settings, lock)

    with pytest.raises(ConnectionResetError):
        await send(make)
    again = await send(make_again)

    assert again.status_code == 200
    async with house.database.read() as session:
        assert list(await session.scalars(select(Dataset.id))) == [bytes(again.body).decode()]


async def test_old_answers_are_forgotten(house: House) -> None:
    anna = await house.person()
    first = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    async with house.database.write() as session:
        await session.execute(update(KeptAnswer).values(created_at=utcnow() - timedelta(hours=25)))

    again = await anna.post("/datasets", json={"name": "test"}, headers=KEY)
    async with house.database.write() as session:
        await session.execute(update(KeptAnswer).values(created_at=utcnow() - timedelta(hours=25)))
    swept = await sweep(house.database, house.settings)

    assert again.json()["id"] != first.json()["id"]
    assert swept == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "\u0007"])
async def test_a_key_that_cannot_be_kept_is_refused(sqlite_house: House, key: str) -> None:
    anna = await sqlite_house.person()

    answer = await anna.post("/datasets", json={"name": "test"}, headers={"Idempotency-Key": key.encode()})

    assert answer.status_code in (400, 422)
