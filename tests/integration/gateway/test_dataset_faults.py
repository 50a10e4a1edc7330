"""Are recordings kept or removed wholly, whatever breaks while they come and while they go?"""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta

from sqlalchemy import select, update

from services.gateway import sweeper
from services.gateway.database import utcnow
from services.gateway.datasets.tables import Dataset, Sample, SampleStatus
from services.gateway.one_by_one import one_by_one
from tests.integration.gateway.conftest import House
from tests.integration.gateway.ingest_double import sound


async def test_a_dataset_that_is_deleted_while_files_come_keeps_none_of_them(house: House) -> None:
    anna = await house.person()
    await anna.post("/datasets", json={"name": "test"})
    house.ingest.claim_gate = asyncio.Event()
    files = {"files": ("a.wav", sound("a"))}
    coming = asyncio.create_task(anna.post("/samples", data={"dataset_id": "test"}, files=files))
    await house.ingest.is_claiming.wait()

    gone = await anna.delete("/datasets/test")
    house.ingest.claim_gate.set()
    answer = await coming

    assert gone.status_code == 204
    assert answer.status_code == 404
    assert house.ingest.files == {}


async def test_a_dataset_that_cannot_be_removed_holds_no_other_up(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    names = ("one", "two", "three")
    for name in names:
        await anna.upload(name, name)
    sqlite_house.ingest.never_removed.add("one")
    async with sqlite_house.database.write() as session:
        await session.execute(update(Dataset).values(status="deleting"))

    await sweeper.sweep(sqlite_house.parts)

    async with sqlite_house.database.read() as session:
        left = {row[0]: row[1] for row in await session.execute(select(Dataset.slug, Dataset.status))}
    assert left == {"one": "deleting", "two": "deleted", "three": "deleted"}
    assert {slug for slug, _ in sqlite_house.ingest.files} == {"one"}


async def test_every_row_gets_its_turn_page_by_page_whichever_fails(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    for name in ("a", "b", "c", "d", "e"):
        await anna.upload(name, name)
    seen: list[str] = []

    async def work(_: str, slug: str) -> None:
        seen.append(slug)
        if slug in ("a", "b"):
            raise RuntimeError("never")

    rows = select(Dataset.id, Dataset.slug)
    succeeded = await one_by_one(sqlite_house.database, rows, Dataset.id, work, page_size=2)

    assert seen == ["a", "b", "c", "d", "e"]
    assert succeeded == 3


async def test_a_deletion_is_finished_when_ingest_is_back(sqlite_house: House) -> None:
    house = sqlite_house
    anna = await house.person()
    made = await anna.upload("test", "one")
    good = house.parts.ingest
    house.parts.ingest = type(good)("ingest", "http://127.0.0.1:1", "x", 1.0)

    gone = await anna.delete(f"/samples/{made['samples'][0]['id']}")
    after = await anna.get(f"/samples/{made['samples'][0]['id']}")
    kept = dict(house.ingest.files)
    await house.parts.ingest.close()
    house.parts.ingest = good
    await sweeper.sweep(house.parts)

    assert gone.status_code == 204
    assert after.status_code == 404
    assert len(kept) == 1
    assert house.ingest.files == {}


async def test_when_ingest_breaks_at_the_claim_the_files_can_be_sent_again(house: House) -> None:
    anna = await house.person()
    house.ingest.is_claim_broken = True
    files = {"files": ("a.wav", sound("a"))}
    broken = await anna.post("/samples", data={"exp_name": "test"}, files=files)
    unseen = (await anna.get("/samples")).json()["items"]
    house.ingest.is_claim_broken = False

    again = await anna.post("/samples", data={"exp_name": "test"}, files=files)

    assert broken.status_code == 500 or broken.status_code == 503
    assert unseen == []
    assert again.status_code == 201
    assert len(again.json()["samples"]) == 1
    assert again.json()["samples"][0]["duplicate"] is False
    assert len(house.ingest.files) == 1


async def test_what_a_killed_gateway_left_is_claimed_or_removed_by_the_sweep(house: House) -> None:
    anna = await house.person()
    house.ingest.is_claim_broken = True
    await anna.post("/samples", data={"exp_name": "one"}, files={"files": ("a.wav", sound("still staged"))})
    await anna.post("/samples", data={"exp_name": "two"}, files={"files": ("b.wav", sound("moved, unsaid"))})
    await anna.post("/samples", data={"exp_name": "three"}, files={"files": ("c.wav", sound("lost"))})
    house.ingest.is_claim_broken = False
    staged = {data: key for key, (_, _, data) in house.ingest.staged.items()}
    moved, lost = sound("moved, unsaid"), sound("lost")
    house.ingest.files["two", hashlib.sha256(moved).hexdigest()] = house.ingest.staged.pop(staged[moved])[2]
    del house.ingest.staged[staged[lost]]
    async with house.database.write() as session:
        await session.execute(update(Sample).values(updated_at=utcnow() - timedelta(hours=1)))

    await sweeper.sweep(house.parts)

    async with house.database.read() as session:
        rows = (await session.execute(select(Dataset.slug, Sample.status).join(Sample).order_by(Dataset.id))).all()
    assert [tuple(row) for row in rows] == [("one", "ready"), ("two", "ready")]
    assert {key[0] for key in house.ingest.files} == {"one", "two"}


async def test_a_file_that_is_lost_on_its_way_is_reported_and_the_others_are_kept(house: House) -> None:
    anna = await house.person()
    house.ingest.claim_gate = asyncio.Event()
    files = [("files", ("a.wav", sound("a"))), ("files", ("b.wav", sound("b")))]
    sending = asyncio.create_task(anna.post("/samples", data={"exp_name": "test"}, files=files))
    await house.ingest.is_claiming.wait()
    lost = next(key for key, (_, _, data) in house.ingest.staged.items() if data == sound("b"))
    del house.ingest.staged[lost]
    house.ingest.claim_gate.set()

    answer = await sending

    assert answer.status_code == 201
    assert [sample["name"] for sample in answer.json()["samples"]] == ["a.wav"]
    assert answer.json()["rejected"][0]["problem"]["code"] == "voice_sample_not_found"
    async with house.database.read() as session:
        assert list(await session.scalars(select(Sample.status))) == [SampleStatus.ready.value]


async def test_ingest_away_is_a_503_that_names_it(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    sqlite_house.parts.ingest._url = "http://127.0.0.1:1"

    answer = await anna.post("/samples", data={"exp_name": "t"}, files={"files": ("a.wav", sound("a"))})

    assert answer.status_code == 503
    assert answer.json()["service"] == "ingest"
    assert answer.json()["retryable"] is True
