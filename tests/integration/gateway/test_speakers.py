"""Whose voice is in a recording: is it kept, told, corrected, and refused where no speaker can have that number?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select, text

from services.gateway.audit.tables import AuditEntry
from services.gateway.backup.tables import tables_of
from services.gateway.database import Database
from services.gateway.migrate import migrate
from tests.integration.gateway.conftest import House, Person, create_database, gateway_settings
from tests.integration.gateway.ingest_double import sound


async def sent(person: Person, *seeds: str, **fields: str) -> list[tuple[str, int]]:
    """Uploads sounds with more fields in the form; returns their names with their speakers."""
    files = [("files", (f"{seed}.wav", sound(seed))) for seed in seeds]
    answer = await person.post("/samples", data={"dataset_name": "choir"} | fields, files=files)
    assert answer.status_code == 201, answer.text
    return [(sample["name"], sample["speaker_id"]) for sample in answer.json()["samples"]]


async def test_recordings_are_of_the_speaker_that_their_form_names_and_of_the_first_otherwise(house: House) -> None:
    anna = await house.person()

    made = [
        await sent(anna, "a"),
        await sent(anna, "b", "c", speaker_id="1"),
        await sent(anna, "d", speaker_id=" 108 "),
    ]
    listed = (await anna.get("/samples", params={"dataset_id": "choir"})).json()["items"]
    one = (await anna.get(f"/samples/{listed[1]['id']}")).json()

    assert made == [[("a.wav", 0)], [("b.wav", 1), ("c.wav", 1)], [("d.wav", 108)]]
    assert [(sample["name"], sample["speaker_id"]) for sample in listed] == [each for part in made for each in part]
    assert one["speaker_id"] == 1


async def test_the_same_recording_again_is_of_the_speaker_that_was_named_last(house: House) -> None:
    anna = await house.person()
    await sent(anna, "a", "b", transcript="", speaker_id="1")

    unsaid = await sent(anna, "a")
    empty = await sent(anna, "a", speaker_id="")
    said = await sent(anna, "a", "b", "c", speaker_id="2")
    back = await sent(anna, "a", speaker_id="0")
    listed = (await anna.get("/samples", params={"dataset_id": "choir"})).json()["items"]

    assert unsaid == empty == [("a.wav", 1)]
    assert said == [("a.wav", 2), ("b.wav", 2), ("c.wav", 2)]
    assert back == [("a.wav", 0)]
    assert [(sample["speaker_id"], sample["version"]) for sample in listed] == [(0, 3), (2, 2), (2, 1)]
    assert house.ingest.staged == {}


@pytest.mark.parametrize("given", ["109", "-1", "1.5", "one", "٣", "1e1", "9" * 5000, "0x1", "1 2"])
async def test_a_number_that_no_speaker_can_have_is_refused_and_nothing_is_kept(
    sqlite_house: House, given: str
) -> None:
    anna = await sqlite_house.person()
    files = {"files": ("a.wav", sound("a"))}

    answer = await anna.post("/samples", data={"dataset_name": "choir", "speaker_id": given}, files=files)

    problem = answer.json()
    assert answer.status_code == 422
    assert (problem["field"], problem["limit"]) == ("speaker_id", 108)
    assert "from 0 to 108" in problem["detail"]
    assert problem["suggested_actions"]
    assert len(problem["detail"]) < 200
    assert (await anna.get("/datasets")).json()["items"] == []
    assert sqlite_house.ingest.staged == {}


async def test_a_speaker_can_be_corrected_and_what_is_not_named_stays(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    await sent(anna, "a", transcript="Hello.")
    (sample,) = (await anna.get("/samples")).json()["items"]
    path = f"/samples/{sample['id']}"
    tag = (await anna.get(path)).headers["etag"]

    changed = await anna.patch(path, json={"speaker_id": 3}, headers={"If-Match": tag})
    outdated = await anna.patch(path, json={"speaker_id": 4}, headers={"If-Match": tag})
    same = await anna.patch(path, json={"speaker_id": 3})
    texted = await anna.patch(path, json={"transcript": "Hello, all."})
    both = await anna.patch(path, json={"transcript": "Bye.", "speaker_id": 0})
    nothing = await anna.patch(path, json={})
    wrong = [await anna.patch(path, json={"speaker_id": number}) for number in (-1, 109, 1.5, "x")]
    foreign = await ben.patch(path, json={"speaker_id": 1})

    assert changed.json() == sample | {"speaker_id": 3, "version": 2}
    assert changed.headers["etag"] != tag
    assert outdated.status_code == 412
    assert (same.json()["version"], same.headers["etag"]) == (2, changed.headers["etag"])
    assert (texted.json()["transcript"], texted.json()["speaker_id"], texted.json()["version"]) == ("Hello, all.", 3, 3)
    assert (both.json()["transcript"], both.json()["speaker_id"]) == ("Bye.", 0)
    assert nothing.json() == both.json()
    assert [(answer.status_code, answer.json()["field"]) for answer in wrong] == [(422, "speaker_id")] * 4
    assert foreign.status_code == 404
    async with house.database.read() as session:
        written = select(AuditEntry.details).where(AuditEntry.action == "sample.changed").order_by(AuditEntry.id)
        told = [details["fields"] for details in await session.scalars(written)]
    assert told == [["speaker_id"], ["transcript"], ["speaker_id", "transcript"]]


async def test_a_dataset_says_how_much_it_holds_of_each_speaker(house: House) -> None:
    anna = await house.person()
    await sent(anna, "a")
    alone = (await anna.get("/datasets/choir")).json()
    await sent(anna, "b", "c", speaker_id="7")
    await anna.post("/datasets", json={"name": "empty"})

    one = (await anna.get("/datasets/choir")).json()
    listed = {item["slug"]: item for item in (await anna.get("/datasets")).json()["items"]}
    made = (await anna.patch("/datasets/choir", json={"description": "two"})).json()

    shares = [
        {"speaker_id": 0, "recordings": 1, "seconds": 12.5},
        {"speaker_id": 7, "recordings": 2, "seconds": 25.0},
    ]
    assert (alone["speakers"], alone["item_count"], alone["duration_seconds"]) == ([], 1, 12.5)
    assert (one["speakers"], one["item_count"], one["duration_seconds"]) == (shares, 3, 37.5)
    assert listed["choir"]["speakers"] == made["speakers"] == shares
    assert (listed["empty"]["speakers"], listed["empty"]["item_count"]) == ([], 0)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_recordings_from_before_speakers_are_of_the_first_and_an_older_program_finds_them_again(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    changes = {"database_url": await create_database(request.getfixturevalue("postgres"))} if kind != "sqlite" else {}
    settings = gateway_settings(tmp_path, **changes)
    await migrate(settings, "up", "0008")
    database = Database(settings)

    async def in_database(deed: Callable[[Connection], Any]) -> Any:
        async with database.engine.begin() as connection:
            return await connection.run_sync(deed)

    def sample(connection: Connection) -> dict[str, Any]:
        (table,) = [table for table in tables_of(connection) if table.name == "samples"]
        return dict(connection.execute(select(table)).mappings().one())

    try:
        await in_database(_an_old_sample)
        before = await in_database(sample)
        await migrate(settings)
        after = await in_database(sample)
        await in_database(lambda connection: connection.execute(text("UPDATE samples SET speaker_id = 5")))
        await migrate(settings, "down", "0008")
        older = await in_database(sample)
        await migrate(settings)
        again = await in_database(sample)
    finally:
        await database.close()

    assert "speaker_id" not in before
    assert after == again == before | {"speaker_id": 0}
    assert older == before


def _an_old_sample(connection: Connection) -> None:
    """A recording with all that it needs, in the schema that the database has."""
    known = {table.name: table for table in tables_of(connection)}
    now = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    times = {"created_at": now, "updated_at": now}
    rows: dict[str, dict[str, Any]] = {
        "users": {"id": "usr_1", "email": "a@example.org", "name": "a", "role": "creator", "password_hash": "-"}
        | {"is_active": True}
        | times,
        "datasets": {"id": "dst_1", "owner_id": "usr_1", "slug": "old", "name": "old", "description": ""}
        | {"status": "active", "version": 1}
        | times,
        "samples": {"id": "smp_1", "dataset_id": "dst_1", "owner_id": "usr_1", "sha256": "0" * 64}
        | {"extension": "wav", "original_name": "a.wav", "mime_type": "audio/wav", "size_bytes": 9}
        | {"duration_seconds": 12.5, "transcript": "Hello.", "transcript_by_machine": False, "status": "ready"}
        | {"report": {}, "version": 1}
        | times,
    }
    for name, row in rows.items():
        connection.execute(known[name].insert(), row)
