"""Do the addresses of the admin panel's training tab answer as the customer's document describes?"""

from __future__ import annotations

from typing import Any

from services.gateway.accounts.tables import Role
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.ingest_double import sound

PANEL = "/admin/training"


async def upload(person: Person, seed: str = "one", **fields: str) -> Any:
    given = {"dataset_name": "Linda", "transcript": f"Words of {seed}."} | fields
    return await person.post(
        f"{PANEL}/upload", data=given, files={"audio": (f"{seed}.mp3", sound(seed, b"ID3"), "audio/mpeg")}
    )


async def test_clips_with_texts_are_uploaded_listed_trained_from_and_the_job_is_shown(sqlite_house: House) -> None:
    house = sqlite_house
    boss = await house.person("boss", Role.admin)
    uploads = [await upload(boss, f"clip{number}") for number in range(6)]

    listed = (await boss.get(f"{PANEL}/datasets")).json()["datasets"]
    started = await boss.post(f"{PANEL}/start", json={"dataset_name": "Linda", "epochs": 7, "batch_size": 4})
    shown = (await boss.get(f"{PANEL}/jobs")).json()["jobs"]

    assert [answer.status_code for answer in uploads] == [200] * 6, uploads[0].text
    first = uploads[0].json()
    assert (first["success"], first["dataset_name"], first["filename"]) == (True, "linda", "clip0.mp3")
    assert (first["transcript"], first["wav"][:5]) == ("Words of clip0.", "wavs/")
    assert "Words of clip5." in house.ingest.metadata["linda"]
    assert [(each["name"], each["title"], each["audio_count"]) for each in listed] == [("linda", "Linda", 6)]
    assert started.status_code == 202, started.text
    job = started.json()
    assert shown == [
        {
            "job_id": job["job_id"],
            "dataset_name": "linda",
            "status": "pending",
            "model_available": False,
            "model": None,
            "log_file": f"/api/v1/training/jobs/{job['job_id']}/logs",
            "progress": 0,
            "created_at": shown[0]["created_at"],
        }
    ]
    whole = (await boss.get(f"/training/jobs/{job['job_id']}")).json()
    assert whole["preset"] == "xtts-v2"
    assert (await boss.get(shown[0]["log_file"].removeprefix("/api/v1"))).status_code == 200


async def test_a_clip_without_its_text_or_without_a_sound_is_refused_and_nothing_is_kept(sqlite_house: House) -> None:
    boss = await sqlite_house.person("boss", Role.admin)

    silent = await upload(boss, transcript=" ")
    nameless = await upload(boss, dataset_name="")
    slip = await upload(boss, transcripts="x")
    text = await boss.post(
        f"{PANEL}/upload", data={"dataset_name": "Linda", "transcript": "x"}, files={"audio": ("a.mp3", b"text")}
    )
    two = await boss.post(
        f"{PANEL}/upload",
        data={"dataset_name": "Linda", "transcript": "x"},
        files=[("audio", ("a.wav", sound("a"))), ("audio", ("b.wav", sound("b")))],
    )

    assert [(a.status_code, a.json().get("field")) for a in (silent, nameless, slip, two)] == [
        (422, "transcript"),
        (422, "dataset_name"),
        (422, "transcripts"),
        (422, "audio"),
    ]
    assert text.status_code == 415
    assert (await boss.get(f"{PANEL}/datasets")).json() == {"datasets": []}
    assert sqlite_house.ingest.staged == {}


async def test_a_start_is_refused_for_what_is_not_there_too_short_or_out_of_range(sqlite_house: House) -> None:
    boss = await sqlite_house.person("boss", Role.admin)
    await upload(boss)

    async def refusal(**body: Any) -> tuple[int, str]:
        answer = await boss.post(f"{PANEL}/start", json={"dataset_name": "Linda"} | body)
        return answer.status_code, answer.json()["code"]

    assert await refusal() == (422, "dataset_too_short")
    assert await refusal(dataset_name="nobody") == (404, "not_found")
    assert (await refusal(epochs=1001))[0] == 422
    assert (await refusal(batch_size=0))[0] == 422
    assert await refusal(language="no language") == (422, "invalid_input")


async def test_only_administrators_have_the_panel(sqlite_house: House) -> None:
    anna = await sqlite_house.person("anna")

    answers = [
        await upload(anna),
        await anna.post(f"{PANEL}/start", json={"dataset_name": "Linda"}),
        await anna.get(f"{PANEL}/datasets"),
        await anna.get(f"{PANEL}/jobs"),
    ]

    assert [answer.status_code for answer in answers] == [403] * 4
