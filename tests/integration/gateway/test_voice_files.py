"""Do the files of voices reach those who may open them, for those whose they are, and nobody else's?"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from libs.common.events import CATALOGUE, MakeVoice
from services.gateway.audit.tables import AuditEntry
from services.gateway.jobs.tables import Outgoing
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice
from tests.integration.gateway.conftest import House, Person


async def ready(house: House, owner: Person, name: str, job_id: str) -> Voice:
    """A voice with a version, as the registry knows it."""
    async with house.database.write() as session:
        reserved = await registry.reserve(session, owner_id=owner.id, name=name)
        return await registry.publish(
            session, owner_id=owner.id, job_id=job_id, slug=reserved.slug, name=name, card={"preset": "lite"}
        )


async def commands(house: House) -> list[MakeVoice]:
    """What the trainer is asked to do."""
    async with house.database.read() as session:
        rows = (await session.scalars(select(Outgoing).where(Outgoing.kind == "command").order_by(Outgoing.id))).all()
    found = [CATALOGUE[row.payload["type"]].model_validate(row.payload["data"]) for row in rows]
    return [command for command in found if isinstance(command, MakeVoice)]


async def test_an_import_is_a_job_and_its_files_wait_unopened(house: House) -> None:
    anna = await house.person()

    answer = await anna.post(
        "/models/import",
        data={"name": "  ../Ännа ", "encoder": "builtin", "rights": "Mine."},
        files=[("model", ("../../x.pth", b"weights")), ("index", ("a.index", b"index"))],
    )

    job = answer.json()
    assert answer.status_code == 202, answer.text
    assert (job["kind"], job["phase"], job["status"], job["dataset_id"]) == ("model", "make", "queued", None)
    assert answer.headers["location"] == f"/api/v1/model/jobs/{job['id']}"
    assert (await anna.get(f"/model/jobs/{job['id']}")).json()["id"] == job["id"]
    (command,) = await commands(house)
    assert (command.voice, command.display_name) == (job["voice"], "../Ännа")
    assert command.options.model is not None
    assert command.options.index is not None
    assert (command.options.tool, command.options.encoder, command.options.rights) == ("import", "builtin", "Mine.")
    assert {command.options.model.upload_id, command.options.index.upload_id} == set(house.ingest.staged)
    assert house.ingest.staged[command.options.model.upload_id][2] == b"weights"
    voice = (await anna.get(f"/models/{job['model_id']}")).json()
    assert (voice["status"], voice["name"]) == ("processing", "../Ännа")
    async with house.database.read() as session:
        entry = await session.scalar(select(AuditEntry).where(AuditEntry.action == "voice.import_asked"))
    assert entry is not None
    assert (entry.actor_id, entry.details["rights"]) == (anna.id, "Mine.")


@pytest.mark.parametrize(
    ("data", "files", "field"),
    [
        ({}, [("model", ("a.pth", b"x"))], "name"),
        ({"name": " \t"}, [("model", ("a.pth", b"x"))], "name"),
        ({"name": "a", "encoder": "none"}, [("model", ("a.pth", b"x"))], "encoder"),
        ({"name": "a", "rights": "x" * 2001}, [("model", ("a.pth", b"x"))], "rights"),
        ({"name": "a", "right": "Mine."}, [("model", ("a.pth", b"x"))], "right"),
        ({"name": "a"}, [("index", ("a.index", b"x"))], "model"),
        ({"name": "a"}, [("model", ("a.pth", b"x")), ("model", ("b.pth", b"y"))], "model"),
        ({"name": "a"}, [("model", ("a.pth", b"x")), ("config", ("c.json", b"y"))], "config"),
    ],
)
async def test_a_form_that_is_not_one_is_refused_and_nothing_is_kept(
    sqlite_house: House, data: dict[str, str], files: list[Any], field: str
) -> None:
    anna = await sqlite_house.person()

    answer = await anna.post("/models/import", data=data, files=files)

    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert sqlite_house.ingest.staged == {}
    assert (await anna.get("/model/jobs")).json()["items"] == []


async def test_a_model_file_over_the_limit_is_refused(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    sqlite_house.ingest.file_limit = 10

    answer = await anna.post("/models/import", data={"name": "a"}, files=[("model", ("a.pth", b"x" * 11))])

    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert (await anna.get("/model/jobs")).json()["items"] == []


async def test_a_repeated_import_is_one_job(house: House) -> None:
    anna = await house.person()
    sent: dict[str, Any] = {"data": {"name": "Anna"}, "headers": {"Idempotency-Key": "one"}}

    answers = [await anna.post("/models/import", files=[("model", ("a.pth", b"weights"))], **sent) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].json()["id"] == answers[1].json()["id"]
    assert len(house.ingest.staged) == 1
    assert len((await anna.get("/model/jobs")).json()["items"]) == 1


async def test_a_checkpoint_may_come_with_its_configuration(house: House) -> None:
    anna = await house.person()

    answer = await anna.post(
        "/models/extract",
        data={"name": "Anna", "speaker": "2"},
        files=[("model", ("G_100.pth", b"x")), ("config", ("config.json", b"{}"))],
    )

    assert answer.status_code == 202, answer.text
    (command,) = await commands(house)
    assert (command.options.tool, command.options.speaker) == ("extract", 2)
    assert command.options.config is not None


async def test_two_voices_of_ones_own_are_merged_and_no_other(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    first, second = await ready(house, anna, "One", "job_1"), await ready(house, anna, "Two", "job_2")
    foreign = await ready(house, ben, "Ben", "job_3")
    async with house.database.write() as session:
        waiting = await registry.reserve(session, owner_id=anna.id, name="Not yet")

    merged = await anna.post("/models/merge", json={"first": first.id, "second": "Two", "share": 0.25, "name": "Both"})
    stolen = await anna.post("/models/merge", json={"first": first.id, "second": foreign.id, "name": "Both"})
    early = await anna.post("/models/merge", json={"first": first.id, "second": waiting.slug, "name": "Both"})
    wrong = await anna.post("/models/merge", json={"first": first.id, "second": second.id, "share": 2, "name": "Both"})

    assert merged.status_code == 202, merged.text
    (command,) = await commands(house)
    assert command.options.first is not None
    assert command.options.second is not None
    assert (command.options.first.version, command.options.second.version) == ("job_1", "job_2")
    assert command.options.share == 0.25
    assert stolen.status_code == 404
    assert (early.status_code, early.json()["code"]) == (409, "voice_not_ready")
    assert (wrong.status_code, wrong.json()["field"]) == (422, "share")


async def test_a_waiting_import_is_cancelled_and_taken_up_again_with_its_files(house: House) -> None:
    anna = await house.person()
    job = (await anna.post("/models/import", data={"name": "Anna"}, files=[("model", ("a.pth", b"weights"))])).json()

    cancelled = await anna.post(f"/model/jobs/{job['id']}/cancel")
    voice = (await anna.get(f"/models/{job['model_id']}")).json()
    again = await anna.post(f"/model/jobs/{job['id']}/retry")

    assert (cancelled.json()["status"], voice["status"]) == ("cancelled", "failed")
    assert (again.status_code, again.json()["attempt"]) == (202, 2)
    assert len(house.ingest.staged) == 1


async def test_a_voice_without_a_version_has_no_file_to_ask_about(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    async with sqlite_house.database.write() as session:
        voice = await registry.reserve(session, owner_id=anna.id, name="Not yet")

    answers = [
        await anna.get(f"/models/{voice.id}/inspect"),
        await anna.post(f"/models/{voice.id}/verify"),
        await anna.post(f"/models/{voice.id}/convert", json={"form": "fp16"}),
        await anna.get(f"/models/{voice.id}/export", params={"format": "applio"}),
    ]

    assert [answer.json()["code"] for answer in answers] == ["voice_not_ready"] * 4
