"""What does the gateway keep of a conversion job and of a ticket? On both databases, without a broker."""

from __future__ import annotations

from datetime import datetime
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, select, update

from libs.common.errors import Unauthenticated
from services.gateway.audit.tables import AuditEntry
from services.gateway.conversions import removing, results
from services.gateway.database import utcnow
from services.gateway.jobs import outbox
from services.gateway.jobs.tables import Job, Outgoing
from services.gateway.live import tickets
from services.gateway.voices import registry
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.ingest_double import sound


async def _voice(house: House, owner: Person, slug: str = "anna") -> None:
    async with house.database.write() as session:
        await registry.publish(session, owner_id=owner.id, job_id="job_0", slug=slug, name=slug, card={})


async def _tell_broker(house: House) -> None:
    """As if the relay had sent everything."""
    async with house.database.write() as session:
        await session.execute(update(Outgoing).values(sent_at=utcnow()))


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
    await _tell_broker(house)
    deleted = await anna.delete(f"/convert/jobs/{job['id']}")

    assert cancelled.json()["status"] == "cancelled"
    assert cancelled.json()["recovery"]["can_retry"] is False
    assert no_retry.status_code in (404, 405)
    assert result.json()["code"] == "no_result"
    assert deleted.status_code == 204
    assert house.ingest.sent == {}
    async with house.database.read() as session:
        assert await session.scalar(select(func.count()).select_from(Job)) == 0


async def test_a_job_stays_until_the_broker_knows_all_of_it_and_then_goes_from_there_too(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = await house.person()
    await _voice(house, anna)
    job = await _convert(anna, "a")
    await anna.post(f"/convert/jobs/{job['id']}/cancel")
    house.ingest.never_removed.add(job["id"])
    forgotten: list[str] = []

    async def forget(job_id: str) -> None:
        forgotten.append(job_id)

    monkeypatch.setattr(house.parts, "connected", SimpleNamespace(forget_job=forget))
    early = await anna.delete(f"/convert/jobs/{job['id']}")
    async with house.database.read() as session:
        unsent = await outbox.unsent(session, job["id"])
    still = await anna.get(f"/convert/jobs/{job['id']}")
    before = list(forgotten)
    await _tell_broker(house)
    deleted = await anna.delete(f"/convert/jobs/{job['id']}")

    assert (early.status_code, early.json()["retryable"]) == (409, True)
    assert "the message broker is still being told" in early.json()["detail"]
    assert unsent > 0
    assert (still.status_code, before) == (200, [])
    assert (deleted.status_code, forgotten) == (204, [job["id"]])


async def test_a_pitch_that_cannot_be_is_refused_before_anything_is_kept(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    wrong = [
        ({"f0_method": "no-such-method"}, "f0_method", "choose one of auto, rmvpe"),
        ({"f0_method": "hybrid[swift+magic]"}, "f0_method", "hybrid[dio+swift]"),
        ({"f0_method": "hybrid[praat+pm]"}, "f0_method", "two to 5 different"),
        ({"f0_file": "0.1;200"}, "f0_file", "line 1 is not `seconds,Hz`"),
        ({"f0_file": "0.1,200\n0.1,300"}, "f0_file", "times must grow"),
        ({"f0_file": "0.1,200\0"}, "f0_file", "line 1 is not `seconds,Hz`"),
        ({"priority": "9" * 5000}, "priority", "0…100"),
        ({"index-rate": "0.7"}, "index-rate", "there is no field 'index-rate'"),
    ]

    answers = [
        await anna.post("/convert/jobs", data={"voice": "anna", **fields}, files={"files": ("a.wav", sound("a"))})
        for fields, _, _ in wrong
    ]
    one = await anna.post("/convert", data={"voice": "anna", "f0_file": "x"}, files={"audio": ("a.wav", sound("a"))})
    fine = await _convert(anna, "b", f0_method="hybrid[rmvpe+crepe]", f0_file="0.0,220\n0.5,247")

    assert [(answer.status_code, answer.json()["field"]) for answer in answers] == [(422, name) for _, name, _ in wrong]
    for answer, (_, _, words) in zip(answers, wrong, strict=True):
        assert words in answer.json()["detail"]
    assert (one.status_code, one.json()["field"]) == (422, "f0_file")
    assert house.ingest.staged == {}
    assert set(house.ingest.sent) == {fine["id"]}


async def test_results_whose_time_is_up_are_told_as_expired(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)
    job = await _convert(anna, "a", "b")
    await _tell_broker(house)
    long_ago = utcnow() - 2 * house.settings.conversion_results_lifetime

    async with house.database.write() as session:
        await session.execute(update(Job).values(status="completed", finished_at=long_ago))
    listed = (await anna.get(f"/convert/jobs/{job['id']}/results")).json()
    result = await anna.get(f"/convert/jobs/{job['id']}/result")

    assert [file["state"] for file in listed["files"]] == ["expired", "expired"]
    assert datetime.fromisoformat(listed["expires_at"]) < utcnow()
    assert result.status_code in (409, 410)


def test_names_in_the_result_fit_into_a_file_system_whatever_their_script() -> None:
    long = "説" * 150
    names = [f"{long}.mp3", f"{long}.wav", "../../etc/passwd", "...", "x" * 240 + ". .mp3"]
    inputs = [
        {"number": number, "name": name, "sha256": "0" * 64, "extension": "wav"} for number, name in enumerate(names, 1)
    ]

    found = list(results._names(Job(kind="conversion", options={"format": "flac"}, inputs=inputs)).values())

    assert found[:2] == [f"{'説' * 60}.flac", f"{'説' * 60} (2).flac"]
    assert found[2:] == ["_.._etc_passwd.flac", "recording-4.flac", f"{'x' * 180}.flac"]
    assert max(len(name.encode()) for name in found) <= 200


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


async def test_a_job_whose_files_cannot_be_removed_holds_no_other_up(house: House) -> None:
    root = house.parts.paths.sent_with_jobs
    for name in ("job_a", "job_b", "job_c"):
        (root / name).mkdir(parents=True)
        house.ingest.sent[name] = []
    house.ingest.never_removed.add(next(root.iterdir()).name)
    house.settings.staged_lifetime = -house.settings.staged_lifetime  # as if all had lain for long

    await removing.sweep(house.parts)

    assert set(house.ingest.sent) == house.ingest.never_removed


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
