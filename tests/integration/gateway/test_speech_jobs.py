"""Do many texts become a job, whatever file they come in, and is what cannot be one refused? Without a broker."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update

from libs.common.paths import WITHOUT_DATASET
from services.gateway.accounts.tables import Role
from services.gateway.audit.tables import AuditEntry
from services.gateway.conversions import removing, results
from services.gateway.database import utcnow
from services.gateway.jobs.tables import Job, Outgoing
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.voices_made import make_speaking_voice, make_voice

FILE = "/synthesize/jobs/file"


async def _command(house: House) -> Outgoing:
    async with house.database.read() as session:
        found = await session.scalar(select(Outgoing).where(Outgoing.kind == "command"))
    assert found is not None
    return found


async def _jobs(house: House) -> int:
    async with house.database.read() as session:
        return await session.scalar(select(func.count()).select_from(Job)) or 0


def _texts(*texts: str, **more: Any) -> dict[str, Any]:
    return {"voice": "linda", "texts": [{"text": text} for text in texts]} | more


async def test_texts_wait_as_one_job_each_with_its_voice_and_name(house: House) -> None:
    anna = await house.person()
    await make_speaking_voice(house, anna)
    await make_speaking_voice(house, anna, "Emma")
    await make_voice(house, anna)
    body = {
        "voice": "Linda",
        "texts": [
            {"text": "Good morning.", "name": "morning"},
            {"text": "Guten Tag.", "voice": "emma", "language": "de"},
        ],
        "through": "Anna, warm",
        "pitch_shift": -2,
        "format": "mp3",
        "priority": 80,
        "name": "Greetings",
    }

    answer = await anna.post("/synthesize/jobs", json=body)
    job = answer.json()
    results = (await anna.get(f"/synthesize/jobs/{job['id']}/results")).json()
    listed = (await anna.get("/synthesize/jobs")).json()["items"]
    command = await _command(house)

    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/api/v1/synthesize/jobs/{job['id']}"
    assert (job["kind"], job["status"], job["voice"], job["total_steps"]) == ("speech", "queued", None, 2)
    assert job["options"]["through"] == "anna-warm"
    assert [item["name"] for item in listed] == ["Greetings"]
    assert command.lane == "high"
    said = command.payload["data"]
    assert [(t["name"], t["voice"], t["language"]) for t in said["texts"]] == [
        ("morning", "linda", None),
        ("text-002", "emma", "de"),
    ]
    assert (said["settings"]["format"], said["settings"]["pitch_shift"]) == ("mp3", -2)
    assert [(file["name"], file["state"]) for file in results["files"]] == [
        ("morning", "waiting"),
        ("text-002", "waiting"),
    ]
    async with house.database.read() as session:
        used = await session.scalar(select(func.count()).where(AuditEntry.action == "voice.used"))
    assert used == 3


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        (
            "text/plain",
            "Good morning.\r\n\r\n  Good night. \n",
            [("text-001", "Good morning."), ("text-002", "Good night.")],
        ),
        ("text/csv", 'name,text\na,"Yes, it is."\nb,No.\n', [("a", "Yes, it is."), ("b", "No.")]),
        ("text/csv; charset=utf-8", "\ufeffText;Name\nJa;\nNein;b\n", [("text-001", "Ja"), ("b", "Nein")]),
        ("text/csv", 'name\ttext\na\t"He said ""so""."\n', [("a", 'He said "so".')]),
        ("text/csv", 'text\n"Two\nlines."\n', [("text-001", "Two\nlines.")]),
        ("text/csv", "clip1|Dr. Who|Doctor Who\nclip2|Yes.\n", [("clip1", "Doctor Who"), ("clip2", "Yes.")]),
    ],
    ids=["lines", "commas", "semicolons", "tabs", "line breaks", "ljspeech"],
)
async def test_a_file_of_texts_becomes_the_same_job(
    sqlite_house: House, kind: str, content: str, said: list[tuple[str, str]]
) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)

    answer = await anna.post(
        FILE, params={"voice": "linda", "speed": 1.5}, content=content.encode(), headers={"Content-Type": kind}
    )

    assert answer.status_code == 202, answer.text
    assert answer.json()["options"]["speed"] == 1.5
    told = (await _command(sqlite_house)).payload["data"]["texts"]
    assert [(one["name"], one["text"]) for one in told] == said


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("text/csv", b"name,words\na,b\n", "no column `text`"),
        ("text/csv", b"text,colour\na,red\n", "no use for the column 'colour'"),
        ("text/csv", b"text,text\na,b\n", "names a column twice"),
        ("text/csv", b"name,text\na,Yes, it is.\n", "line 2 of the table has 3 cells"),
        ("text/csv", b'name,text\na,"never closed\n', "cannot be read"),
        ("text/csv", b"a|Hello.\nb|\n", "line 2 of the table is not of the form"),
        ("text/csv", b"text,voice\nHello.," + b"v" * 201 + b"\n", "line 2: voice"),
        ("text/csv", b"text\n", "the file holds no text"),
        ("text/plain", b" \n \n", "the file holds no text"),
        ("text/plain", b"caf\xe9\n", "not UTF-8 at byte 3"),
        ("text/plain", b"a\0b\n", "line 1: text"),
        ("audio/wav", b"RIFF", "audio/wav is not read"),
    ],
)
async def test_a_file_that_holds_no_texts_is_refused_and_says_where(
    sqlite_house: House, kind: str, content: bytes, words: str
) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)

    answer = await anna.post(FILE, params={"voice": "linda"}, content=content, headers={"Content-Type": kind})

    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert await _jobs(sqlite_house) == 0


async def test_what_a_job_does_not_take_is_refused_with_its_field_and_limit(sqlite_house: House) -> None:
    house = sqlite_house
    anna, ben, vera = await house.person(), await house.person("ben"), await house.person("vera", Role.viewer)
    await make_speaking_voice(house, anna)
    await make_voice(house, anna)
    wrong: list[tuple[Person, dict[str, Any], int, str | None]] = [
        (vera, _texts("Hello."), 403, None),
        (ben, _texts("Hello."), 404, "voice"),
        (anna, _texts("Hello.", " \n"), 422, "texts.1.text"),
        (anna, _texts("x" * 20_001), 422, "texts.0.text"),
        (anna, _texts(*["x" * 20_000] * 11), 422, "texts"),
        (anna, _texts(*["x"] * 501), 422, "texts"),
        (anna, {"voice": "linda", "texts": []}, 422, "texts"),
        (anna, {"texts": [{"text": "Hello."}]}, 422, "voice"),
        (anna, {"texts": [{"text": "Hello.", "voice": "anna-warm"}]}, 422, "texts.0.voice"),
        (anna, {"texts": [{"text": "Hello.", "voice": "nobody"}]}, 404, "texts.0.voice"),
        (anna, _texts("Hello.", through="linda"), 422, "through"),
        (anna, _texts("Hello.", pitch_shift=2), 422, "pitch_shift"),
        (anna, _texts("Hello.", format="aiff"), 422, "format"),
        (anna, _texts("Hello.", priority=101), 422, "priority"),
        (anna, _texts("Hello.", stream=True), 422, "stream"),
        (anna, {"voice": "linda", "texts": [{"text": "Hello.", "volume": 1}]}, 422, "texts.0.volume"),
    ]

    answers = [await person.post("/synthesize/jobs", json=body) for person, body, _, _ in wrong]

    assert [(answer.status_code, answer.json().get("field")) for answer in answers] == [
        (status, field) for _, _, status, field in wrong
    ]
    assert answers[3].json()["limit"] == 20_000
    assert answers[5].json()["limit"] == 500
    assert await _jobs(house) == 0


async def test_a_repeated_request_is_the_same_job_and_another_with_its_key_is_refused(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    await make_speaking_voice(sqlite_house, anna)
    headers = {"Idempotency-Key": "one"}
    csv = headers | {"Content-Type": "text/csv"}

    first, again = [await anna.post("/synthesize/jobs", json=_texts("Hello."), headers=headers) for _ in range(2)]
    other = await anna.post("/synthesize/jobs", json=_texts("Good-bye."), headers=headers)
    file, file_again = [
        await anna.post(FILE, params={"voice": "linda"}, content=b"text\nHi.\n", headers=csv | {"Idempotency-Key": "2"})
        for _ in range(2)
    ]

    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert again.headers["Idempotent-Replayed"] == "true"
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert file_again.json()["id"] == file.json()["id"]
    assert await _jobs(sqlite_house) == 2


async def test_a_waiting_job_is_cancelled_taken_up_again_and_seen_by_nobody_else(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    await make_speaking_voice(house, anna)
    job = (await anna.post("/synthesize/jobs", json=_texts("Hello.", "Good-bye."))).json()
    address = f"/synthesize/jobs/{job['id']}"

    foreign = [await ben.get(f"{address}{end}") for end in ("", "/logs", "/results", "/result", "/results/1")]
    foreign += [await ben.post(f"{address}/cancel"), await ben.post(f"{address}/retry"), await ben.delete(address)]
    early = await anna.get(f"{address}/result")
    cancelled = (await anna.post(f"{address}/cancel")).json()
    left = (await anna.get(f"{address}/results")).json()
    again = await anna.post(f"{address}/retry")

    assert [answer.status_code for answer in foreign] == [404] * len(foreign)
    assert (early.status_code, early.json()["code"]) == (409, "no_result")
    assert (cancelled["status"], cancelled["recovery"]["can_retry"]) == ("cancelled", True)
    assert [file["state"] for file in left["files"]] == ["left", "left"]
    assert (again.status_code, again.json()["status"], again.json()["attempt"]) == (202, "queued", 2)


def test_names_of_sounds_are_those_of_the_texts_and_fit_into_a_file_system() -> None:
    names = ["Dr. Who", "dr. who", "説" * 150, "../../etc/passwd", "...", "1.5 km"]
    inputs = [{"number": number, "name": name, "text": "x", "voice": "linda"} for number, name in enumerate(names, 1)]

    found = list(results._names(Job(kind="speech", options={"format": "opus"}, inputs=inputs)).values())

    assert found == [
        "Dr. Who.opus",
        "dr. who (2).opus",
        f"{'説' * 60}.opus",
        "_.._etc_passwd.opus",
        "text-5.opus",
        "1.5 km.opus",
    ]


async def test_sounds_whose_time_is_up_and_those_without_a_job_are_swept(house: House) -> None:
    anna = await house.person()
    await make_speaking_voice(house, anna)
    jobs = [(await anna.post("/synthesize/jobs", json=_texts("Hello."))).json()["id"] for _ in range(2)]
    steps = house.parts.paths.experiment(WITHOUT_DATASET).steps
    for name in (*jobs, "job_of_nobody"):
        (steps / name / "say").mkdir(parents=True)
        house.ingest.sent[name] = []
    long_ago = utcnow() - 2 * house.settings.conversion_results_lifetime
    async with house.database.write() as session:
        await session.execute(update(Job).where(Job.id == jobs[0]).values(status="completed", finished_at=long_ago))

    await removing.sweep(house.parts)
    young = set(house.ingest.sent)
    house.settings.staged_lifetime = -house.settings.staged_lifetime  # as if it had lain for long
    await removing.sweep(house.parts)
    listed = (await anna.get(f"/synthesize/jobs/{jobs[0]}/results")).json()

    assert young == {jobs[1], "job_of_nobody"}
    assert set(house.ingest.sent) == {jobs[1]}
    assert [file["state"] for file in listed["files"]] == ["expired"]
