"""Can administrators search what all services said, and nobody else?"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from services.gateway.accounts.tables import Role
from services.gateway.logbook import api
from tests.integration.gateway.conftest import House

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def said(house: House, service: str, *events: str, **more: object) -> None:
    """Lines as a service writes them, a minute apart."""
    folder = house.parts.paths.logs / service
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{service}.jsonl").open("a") as file:
        for number, event in enumerate(events):
            stamp = (NOW + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            line = {"service": service, "timestamp": stamp, "level": "info", "logger": "x", "event": event, **more}
            file.write(json.dumps(line) + "\n")


async def test_an_administrator_finds_what_a_request_made_happen_in_every_service(sqlite_house: House) -> None:
    said(sqlite_house, "gateway", "http", "other", request_id="req_1", status=200)
    said(sqlite_house, "trainer", "worker.done", job_id="job_1", step="train")
    admin = await sqlite_house.person("root", role=Role.admin)

    found = (await admin.get("/admin/logs", params={"limit": 2})).json()
    of_job = (await admin.get("/admin/logs", params={"job_id": "job_1", "service": "trainer"})).json()
    before = {"until": found["searched_until"], "level": "info"}
    rest = (await admin.get("/admin/logs", params=before)).json()

    assert found["items"][0]["event"] == "other"
    assert len(found["items"]) == 2
    assert found["is_complete"] is False
    (line,) = of_job["items"]
    assert (line["event"], line["job_id"], line["fields"]) == ("worker.done", "job_1", {"step": "train"})
    assert of_job["is_complete"] is True
    assert all(one["at"] < found["searched_until"] for one in rest["items"])


async def test_others_may_not_search_and_odd_wishes_are_refused(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    admin = await sqlite_house.person("root", role=Role.admin)

    assert (await anna.get("/admin/logs")).status_code == 403
    for odd in ({"service": "../etc"}, {"level": "loud"}, {"limit": 0}, {"since": "2026-11-21T09:00:00"}):
        assert (await admin.get("/admin/logs", params=odd)).status_code == 422, odd
    assert (await admin.get("/admin/logs")).json()["items"] == []


async def test_a_third_search_at_once_is_asked_to_come_back(sqlite_house: House) -> None:
    admin = await sqlite_house.person("root", role=Role.admin)

    with api.AT_ONCE, api.AT_ONCE:
        answer = await admin.get("/admin/logs")

    assert answer.status_code == 429
    assert answer.headers["Retry-After"]
    assert (await admin.get("/admin/logs")).status_code == 200
