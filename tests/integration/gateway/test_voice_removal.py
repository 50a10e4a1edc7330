"""Does a deleted voice go wholly, with its copies and runs, and at a later time when it cannot go now?"""

from __future__ import annotations

import shutil
from pathlib import Path

from sqlalchemy import select, update

from services.gateway import sweeper
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice
from tests.integration.gateway.conftest import House, Person
from tests.integration.gateway.voices_made import make_voice, publish_voice


async def test_deleting_a_voice_takes_its_folder_and_keeps_its_slug_taken(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    voice = await make_voice(house, anna)
    folder: Path = house.parts.paths.voice(voice.slug).folder

    refused = await anna.delete("/models/anna-warm", headers={"If-Match": '"old.1"'})
    gone = await anna.delete("/models/anna-warm")
    async with house.database.write() as session:
        late = await publish_voice(session, anna, "anna-warm", "job_2")
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
    voice = await make_voice(house, anna)
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
        await make_voice(sqlite_house, anna, name)
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
    voice = await make_voice(sqlite_house, anna)
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
