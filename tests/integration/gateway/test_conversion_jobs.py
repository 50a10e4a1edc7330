"""What does the gateway keep of a conversion job and of a ticket? On both databases, without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update

from libs.common.errors import Unauthenticated
from services.gateway.audit.tables import AuditEntry
from services.gateway.conversions import removing
from services.gateway.database import utcnow
from services.gateway.jobs.tables import Job, Outgoing
from services.gateway.live import tickets
from services.gateway.voices import registry
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.ingest_double import sound


async def _voice(house: House, owner: Person, slug: str = "anna") -> None:
    async with house.database.write() as session:
        await registry.publish(session, owner_id=owner.id, job_id="job_0", slug=slug, name=slug, card={})


async def _convert(person: Person, *seeds: str, **fields: Any) -> dict[str, Any]:
    files = [("files", (f"{seed}.wav", sound(seed))) for seed in seeds] or [("_", (None, b""))]
    answer = await person.post("/convert/jobs", data={"voice": "anna", **fields}, files=files)
    assert answer.status_code == 202, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def test_a_job_waits_with_its_command_in_the_outbox_and_its_recordings_with_ingest(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)

    job = await _convert(anna, "a", "b", pitch_shift="-2", format="mp3", priority="80", name="Talks")
    results = (await anna.get(f"/convert/jobs/{job['id']}/results")).json()
    listed = (await anna.get("/convert/jobs", params={"status": "active"})).json()["items"]

    async with house.database.read() as session:
        command = await session.scalar(select(Outgoing).where(Outgoing.kind == "command"))
        used = await session.scalar(select(func.count()).where(AuditEntry.action == "voice.used"))
    assert command is not None
    assert (command.lane, command.payload["data"]["voice"]) == ("high", "anna")
    assert command.payload["data"]["settings"]["pitch_shift"] == -2
    assert [item["name"] for item in command.payload["data"]["inputs"]] == ["a.wav", "b.wav"]
    assert len(house.ingest.sent[job["id"]]) == 2
    assert house.ingest.staged == {}
    assert [file["state"] for file in results["files"]] == ["waiting", "waiting"]
    assert results["expires_at"] is None
    assert [item["name"] for item in listed] == ["Talks"]
    assert used == 1


async def test_a_waiting_job_is_cancelled_at_once_deleted_and_leaves_nothing(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    job = await _convert(anna, "a")

    cancelled = await anna.post(f"/convert/jobs/{job['id']}/cancel")
    no_retry = await anna.post(f"/convert/jobs/{job['id']}/retry")
    result = await anna.get(f"/convert/jobs/{job['id']}/result")
    deleted = await anna.delete(f"/convert/jobs/{job['id']}")

    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["recovery"]["can_retry"] is False
    assert no_retry.status_code in (404, 405)
    assert result.json()["code"] == "no_result"
    assert deleted.status_code == 204
    assert house.ingest.sent == {}
    async with house.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_any_number_of_jobs_may_read_one_dataset_and_keep_it_from_being_deleted(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    dataset = (await anna.upload("Talks", "one", "two"))["dataset"]["id"]

    first = await _convert(anna, dataset_id=dataset)
    second = await _convert(anna, dataset_id=dataset)
    kept = await anna.delete(f"/datasets/{dataset}")
    for job in (first, second):
        await anna.post(f"/convert/jobs/{job['id']}/cancel")
    gone = await anna.delete(f"/datasets/{dataset}")

    assert (kept.status_code, gone.status_code) == (409, 204)
    assert first["dataset_id"] == dataset


async def test_samples_of_two_datasets_are_refused_and_too_many_recordings_too(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    samples = [(await anna.upload(name, name))["samples"][0]["id"] for name in ("One", "Two")]
    house.settings.conversion_files = 1

    mixed = await anna.post("/convert/jobs", data={"voice": "anna", "sample_ids": ",".join(samples)}, files={"_": ""})
    files = [("files", (f"{n}.wav", sound(str(n)))) for n in range(2)]
    many = await anna.post("/convert/jobs", data={"voice": "anna"}, files=files)

    assert (mixed.status_code, mixed.json()["field"]) == (422, "sample_ids")
    assert (many.status_code, many.json()["limit"]) == (422, 1)
    assert house.ingest.staged == {}


async def test_recordings_without_a_job_are_swept_and_those_of_a_waiting_one_stay(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    job = await _convert(anna, "a")
    root = house.parts.paths.sent_with_jobs
    for name in (job["id"], "job_of_nobody"):
        (root / name).mkdir(parents=True)
        house.ingest.sent.setdefault(name, [])

    await removing.sweep(house.parts)
    young = set(house.ingest.sent)
    house.settings.staged_lifetime = -house.settings.staged_lifetime  # as if it had lain for long
    await removing.sweep(house.parts)

    assert young == {job["id"], "job_of_nobody"}
    assert set(house.ingest.sent) == {job["id"]}


async def test_a_ticket_works_once_in_its_time_and_only_for_an_active_account(house: House) -> None:
    anna = await house.person()
    issued = [(await anna.post("/ws/tickets")).json() for _ in range(2)]

    caller = await tickets.redeem(house.parts, issued[0]["ticket"])
    async with house.database.write() as session:
        await session.execute(update(tickets.Ticket).values(expires_at=utcnow()))

    assert caller.id == anna.id
    assert issued[0]["expires_in"] == 30
    for ticket in (issued[0]["ticket"], issued[1]["ticket"], "never"):
        with pytest.raises(Unauthenticated):
            await tickets.redeem(house.parts, ticket)
    async with house.database.read() as session:
        kept = await session.scalar(select(func.count()).select_from(tickets.Ticket))
    assert kept == 0
