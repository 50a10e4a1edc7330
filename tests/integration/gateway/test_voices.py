"""Are voices found, used, exported and deleted by those whose they are?"""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from libs.common.errors import Busy, Conflict, NotFound
from services.gateway import sweeper
from services.gateway.accounts.tables import Role
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice
from tests.integration.gateway.conftest import House, Person, until
from tests.integration.gateway.ingest_double import sound

JOB = "job_01JD3Q0V6X9W4T2M8N5R7K1A3B"
CARD = {"preset": "lite", "quality": {"similarity": 0.81}}


async def _voice(house: House, owner: Person, name: str = "Anna, warm", job_id: str = JOB) -> Voice:
    """A voice as the jobs domain makes one, with its files."""
    async with house.database.write() as session:
        reserved = await registry.reserve(session, owner_id=owner.id, name=name)
    version = house.parts.paths.voice(reserved.slug).version(job_id)
    version.folder.mkdir(parents=True, exist_ok=True)
    version.weights.write_bytes(b"weights" * 200_000)
    version.index.write_bytes(b"index" * 1000)
    version.card.write_text(json.dumps(CARD))
    async with house.database.write() as session:
        return await _publish(session, owner, reserved.slug, job_id)


async def _publish(session: Any, owner: Person, slug: str, job_id: str = JOB, place: int = 0) -> Voice:
    return await registry.publish(
        session,
        owner_id=owner.id,
        job_id=job_id,
        slug=slug,
        name="Anna, warm",
        card=CARD,
        weights_sha256="ab" * 32,
        index_sha256="cd" * 32,
        sample_rate=22050,
        preset="lite",
        place=place,
    )


async def test_a_published_voice_is_listed_with_relative_paths_only(house: House) -> None:
    anna = await house.person()
    voice = await _voice(house, anna)

    listed = (await anna.get("/models", params={"status": "ready"})).json()["items"]
    one = (await anna.get("/models/anna-warm")).json()

    assert [item["id"] for item in listed] == [voice.id]
    assert one["path"] == f"anna-warm/versions/{JOB}"
    assert one["training_job_id"] == JOB
    assert one["base_model"] == "lite"
    assert one["quality"] == {"similarity": 0.81}
    assert one["card"] == CARD
    assert str(house.settings.models_root) not in json.dumps(one)


async def test_publishing_twice_changes_nothing_and_a_new_version_replaces(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await _voice(house, anna)

    async with house.database.write() as session:
        again = await _publish(session, anna, voice.slug)
    newer = await _voice(house, anna, job_id="job_2")
    with pytest.raises(Conflict):
        async with house.database.write() as session:
            await _publish(session, ben, voice.slug, "job_3")

    assert again.version == voice.version
    assert newer.id == voice.id
    assert newer.version == voice.version + 1
    assert newer.path == "anna-warm/versions/job_2"


async def test_the_version_that_was_committed_last_is_served_whichever_is_told_first(house: House) -> None:
    anna = await house.person()
    voice = await _voice(house, anna)

    async with house.database.write() as session:
        await _publish(session, anna, voice.slug, "job_3", place=300)
    async with house.database.write() as session:
        late = await _publish(session, anna, voice.slug, "job_2", place=200)
    async with house.database.write() as session:
        newest = await _publish(session, anna, voice.slug, "job_4", place=400)

    assert late.job_id == "job_3"
    assert (newest.job_id, newest.card["revision"], newest.card["version"]) == ("job_4", 400, "job_4")


async def test_a_voice_of_the_same_name_is_trained_anew_and_a_strangers_is_not(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await _voice(house, anna)

    async with house.database.write() as session:
        own = await registry.reserve(session, owner_id=anna.id, name="Anna, warm")
        other = await registry.reserve(session, owner_id=ben.id, name="Anna, warm")

    assert own.id == voice.id
    assert other.slug.startswith("anna-warm-")
    assert (await ben.get("/models")).json()["items"][0]["status"] == "processing"


async def test_an_export_is_a_zip_with_weights_index_and_card(house: House) -> None:
    anna = await house.person()
    await _voice(house, anna)

    answer = await anna.get("/models/anna-warm/export", params={"format": "zip"})
    archive = zipfile.ZipFile(io.BytesIO(answer.content))

    assert answer.headers["content-type"] == "application/zip"
    assert "anna-warm.zip" in answer.headers["content-disposition"]
    assert archive.testzip() is None
    assert archive.namelist() == [f"anna-warm/{name}" for name in ("anna-warm.pth", "anna-warm.index", "voice.json")]
    assert archive.read("anna-warm/anna-warm.pth") == b"weights" * 200_000
    assert json.loads(archive.read("anna-warm/voice.json")) == CARD


async def test_an_export_of_what_is_not_there_says_so(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    voice = await _voice(sqlite_house, anna)
    sqlite_house.parts.paths.voice(voice.slug).version(JOB).weights.unlink()
    async with sqlite_house.database.write() as session:
        await registry.reserve(session, owner_id=anna.id, name="not yet")

    lost = await anna.get("/models/anna-warm/export")
    early = await anna.get("/models/not-yet/export")
    other = await anna.get("/models/anna-warm/export", params={"format": "tar"})

    assert lost.status_code == 404
    assert early.status_code == 409
    assert early.json()["code"] == "voice_not_ready"
    assert other.status_code == 422


async def test_deleting_a_voice_takes_its_folder_and_keeps_its_slug_taken(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await _voice(house, anna)
    folder: Path = house.parts.paths.voice(voice.slug).folder

    refused = await anna.delete("/models/anna-warm", headers={"If-Match": '"old.1"'})
    gone = await anna.delete("/models/anna-warm")
    async with house.database.write() as session:
        late = await _publish(session, anna, "anna-warm", "job_2")
        other = await registry.reserve(session, owner_id=ben.id, name="Anna, warm")

    assert refused.status_code == 412
    assert gone.status_code == 204
    assert not folder.exists()
    assert late.status == "deleted"
    assert other.slug != "anna-warm"
    assert (await anna.get("/models/anna-warm")).status_code == 404


async def _jobs_of(house: House, owner: Person, slug: str) -> None:
    """Two ended jobs that trained the voice: one whose dataset was prepared, one that failed before."""
    async with house.database.write() as session:
        for number, status in ((1, "completed"), (2, "failed")):
            session.add(
                Job(
                    id=f"job_{number}", owner_id=owner.id, kind="training", name=slug, dataset_id="dst_1",
                    dataset="speech", experiment="speech", voice=slug, preset="lite", options={}, inputs=[],
                    status=status,
                )
            )  # fmt: skip
        await session.flush()
        for step, token in (("preprocess", 2), ("train", 3)):
            row = JobStep(job_id="job_1", step=step, token=token)
            row.manifest_path, row.manifest_sha256, row.manifest_token = "x", "0" * 64, token
            session.add(row)


async def test_deleting_a_voice_takes_every_copy_and_every_run_with_it(house: House, tmp_path: Path) -> None:
    anna = await house.person()
    voice = await _voice(house, anna)
    await _jobs_of(house, anna, voice.slug)
    storage, bucket = house.parts.storage, house.settings.voice_models_bucket
    (tmp_path / "file").write_bytes(b"weights")
    for key in ("anna-warm/job_1/anna-warm.pth", "anna-warm/job_2/voice.json", "anna-warmer/job_3/voice.json"):
        storage.put_file(bucket, key, tmp_path / "file")

    gone = await anna.delete("/models/anna-warm")

    assert gone.status_code == 204
    assert storage.list(bucket) == ["anna-warmer/job_3/voice.json"]
    assert house.ingest.swept == [
        ("speech", "job_1", {"keep": {"preprocess": 2}}),
        ("speech", "job_2", {"keep": {}}),
    ]


async def test_a_voice_whose_copies_cannot_be_removed_now_goes_later_and_holds_no_other_up(
    sqlite_house: House, tmp_path: Path
) -> None:
    anna = await sqlite_house.person()
    store = Path(sqlite_house.settings.storage_url.removeprefix("file://")) / sqlite_house.settings.voice_models_bucket
    for name in ("A stuck one", "Another"):
        await _voice(sqlite_house, anna, name)
    stuck = store / "a-stuck-one" / "job_1" / "voice.json"
    stuck.parent.mkdir(parents=True)
    stuck.touch()
    folder = sqlite_house.parts.paths.voice("a-stuck-one").folder
    shutil.rmtree(folder)
    folder.write_text("a file where a folder was: it cannot be removed as one")

    async with sqlite_house.database.write() as session:
        await session.execute(update(Voice).values(status="deleting"))
    await sweeper.sweep(sqlite_house.parts)
    async with sqlite_house.database.read() as session:
        between = {row[0]: row[1] for row in await session.execute(select(Voice.slug, Voice.status))}
    folder.unlink()
    await sweeper.sweep(sqlite_house.parts)
    async with sqlite_house.database.read() as session:
        after = {row[0]: row[1] for row in await session.execute(select(Voice.slug, Voice.status))}

    assert between == {"a-stuck-one": "deleting", "another": "deleted"}
    assert after == {"a-stuck-one": "deleted", "another": "deleted"}
    assert not stuck.exists()


async def test_a_folder_that_cannot_be_removed_now_is_removed_later(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    voice = await _voice(sqlite_house, anna)
    folder = sqlite_house.parts.paths.voice(voice.slug).folder
    kept = folder.rename(folder.parent / "away")
    folder.write_text("a file where a folder was: it cannot be removed as one")

    gone = await anna.delete("/models/anna-warm")
    async with sqlite_house.database.read() as session:
        between = await session.scalar(select(Voice.status))
    folder.unlink()
    kept.rename(folder)
    await sweeper.sweep(sqlite_house.parts)

    assert gone.status_code == 204
    assert between == "deleting"
    assert not folder.exists()
    async with sqlite_house.database.read() as session:
        assert await session.scalar(select(Voice.status)) == "deleted"


@pytest.mark.parametrize("by", ["id", "slug", "name"])
async def test_a_recording_is_converted_by_a_voice_named_in_any_way(house: House, by: str) -> None:
    anna = await house.person()
    voice = await _voice(house, anna)

    answer = await anna.post(
        "/convert",
        data={"voice": getattr(voice, by), "pitch_shift": "-3", "format": "flac", "index_rate": "0.7"},
        files={"audio": ("me.wav", sound("me"))},
    )

    assert answer.status_code == 200
    assert answer.content.startswith(b"RIFF")
    assert answer.headers["content-type"] == "audio/wav"
    assert answer.headers["x-voice-version"] == "job_1"
    assert answer.headers["x-real-time-factor"] == "0.1"
    assert "x-inner" not in answer.headers
    order = house.inference.asked[0]
    assert order["voice"] == "anna-warm"
    assert order["pitch_shift"] == -3
    assert order["format"] == "flac"
    assert order["protect"] == 0.33
    await until(lambda: house.ingest.staged == {})


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({}, 422, "voice"),
        ({"voice": "nobody"}, 404, "voice"),
        ({"voice": "../../etc"}, 404, "voice"),
        ({"voice": "anna-warm", "pitch_shift": "99"}, 422, "pitch_shift"),
        ({"voice": "anna-warm", "index_rate": "nan"}, 422, "index_rate"),
        ({"voice": "anna-warm", "protect": "much"}, 422, "protect"),
        ({"voice": "anna-warm", "format": "exe"}, 422, "format"),
        ({"voice": "anna-warm", "f0_method": "../x"}, 422, "f0_method"),
    ],
)
async def test_a_conversion_that_cannot_be_is_refused_and_leaves_nothing(
    sqlite_house: House, fields: dict[str, str], status: int, field: str
) -> None:
    anna = await sqlite_house.person()
    await _voice(sqlite_house, anna)

    answer = await anna.post("/convert", data=fields, files={"audio": ("me.wav", sound("me"))})

    assert answer.status_code == status
    assert answer.json()["field"] == field
    assert sqlite_house.ingest.staged == {}
    assert sqlite_house.inference.asked == []


async def test_a_client_that_leaves_gives_its_place_at_inference_back(sqlite_house: House) -> None:
    house = sqlite_house
    anna = await house.person()
    await _voice(house, anna)
    house.inference.is_slow = True
    sending = asyncio.create_task(
        anna.post("/convert", data={"voice": "anna-warm"}, files={"audio": ("me.wav", sound("me"))})
    )
    await until(lambda: len(house.inference.asked) == 1)

    sending.cancel()

    await until(lambda: house.inference.left == 1)
    await until(lambda: house.ingest.staged == {})


async def test_a_strangers_voice_does_not_exist(house: House) -> None:
    anna, ben, admin = await house.person("anna"), await house.person("ben"), await house.person("root", Role.admin)
    voice = await _voice(house, anna)

    def convert(person: Person, key: str) -> Any:
        return person.post("/convert", data={"voice": key}, files={"audio": ("me.wav", sound("me"))})

    answers = [
        await ben.get("/models/anna-warm"),
        await ben.get(f"/models/{voice.id}/export"),
        await ben.patch("/models/anna-warm", json={"name": "mine"}),
        await ben.delete("/models/anna-warm"),
        await convert(ben, "anna-warm"),
        await convert(ben, "Anna, warm"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert (await convert(anna, "\0")).status_code == 404
    assert (await convert(admin, "anna-warm")).status_code == 200


async def test_what_inner_services_refuse_reaches_the_caller_as_it_is(sqlite_house: House) -> None:
    house = sqlite_house
    anna = await house.person()
    await _voice(house, anna)

    def convert(data: bytes = sound("me")) -> Any:
        return anna.post("/convert", data={"voice": "anna-warm"}, files={"audio": ("me.wav", data)})

    no_sound = await convert(b"hello")
    house.inference.problem = Busy("the queue is full", retry_after=7)
    busy = await convert()
    house.inference.problem = NotFound("the voice has no weights")
    lost = await convert()
    good, house.parts.inference._client.base_url = house.parts.inference._client.base_url, "http://127.0.0.1:1"
    away = await convert()
    house.parts.inference._client.base_url = good
    none = await anna.post("/convert", data={"voice": "anna-warm"}, files={"x": (None, "y")})

    assert no_sound.status_code == 415
    assert busy.status_code == 429
    assert busy.headers["retry-after"] == "7"
    assert lost.status_code == 404
    assert away.status_code == 503
    assert away.json()["service"] == "inference"
    assert none.json()["field"] == "audio"
    await until(lambda: house.ingest.staged == {})


async def test_a_voice_that_is_not_ready_cannot_be_used(sqlite_house: House) -> None:
    anna = await sqlite_house.person()
    async with sqlite_house.database.write() as session:
        await registry.reserve(session, owner_id=anna.id, name="not yet")

    answer = await anna.post("/convert", data={"voice": "not-yet"}, files={"audio": ("me.wav", sound("me"))})

    assert answer.status_code == 409
    assert answer.json()["code"] == "voice_not_ready"


async def test_the_system_says_what_is_there(sqlite_house: House) -> None:
    anna = await sqlite_house.person()

    version = await sqlite_house.stranger().get("/api/v1/version")
    rooted = await sqlite_house.stranger().get("/version")
    answer = (await anna.get("/system/services")).json()
    ready = await sqlite_house.stranger().get("/readyz")

    assert version.json()["name"] == "voicewright"
    assert rooted.json() == version.json()
    states = {service["name"]: service["ok"] for service in answer["services"]}
    assert states == {
        "gateway": True,
        "broker": False,
        "ingest": True,
        "inference": False,
        "preprocessor": False,
        "trainer": False,
    }
    assert ready.status_code == 503
    assert [check["ok"] for check in ready.json()["checks"]] == [True, False]
