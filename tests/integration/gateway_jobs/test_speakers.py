"""Do jobs know whose the recordings are, and is a dataset refused whose speakers cannot become one voice?"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, update

from libs.common.events import CheckSpeech, PrepareDataset, PublishVoice, ValidateDataset
from libs.common.speakers import HIGHEST_SPEAKER
from libs.voice.rvc.config import CONFIGS
from services.gateway.datasets.tables import Sample
from services.gateway.jobs.presets import PRESETS
from services.gateway.jobs.tables import Job, Outgoing
from tests.integration.gateway_jobs.conftest import House, Person
from tests.integration.gateway_jobs.preparations import prepare
from tests.integration.gateway_jobs.scripted_workers import Workers


async def of_speakers(house: House, dataset: str, *speakers: int) -> list[str]:
    """Says whose the recordings of a dataset are, in their order; returns the recordings' ids."""
    async with house.database.write() as session:
        statement = select(Sample.id).where(Sample.dataset_id == dataset).order_by(Sample.original_name)
        ids = list(await session.scalars(statement))
        for sample, speaker in zip(ids, speakers, strict=True):
            await session.execute(update(Sample).where(Sample.id == sample).values(speaker_id=speaker))
    return ids


async def validation(person: Person, dataset: str, preset: str = "lite") -> dict[str, Any]:
    answer = await person.post(f"/datasets/{dataset}/validate", params={"preset": preset})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_every_step_is_told_whose_the_recordings_are_and_hears_nothing_of_the_first(
    house: House, workers: Workers
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(30.0, 31.0, 32.0))
    await of_speakers(house, dataset, 0, 1, 108)
    workers.work()

    job = await house.train(anna, dataset)
    await house.wait_status(anna, job["id"], "completed")

    told = [command for command in workers.seen if isinstance(command, ValidateDataset | PrepareDataset | PublishVoice)]
    assert [[item.speaker for item in command.inputs] for command in told] == [[0, 1, 108]] * 3
    async with house.database.read() as session:
        row = await session.get(Job, job["id"])
        assert row is not None
        kept = list(row.inputs)
        sent = [payload for payload in await session.scalars(select(Outgoing.payload)) if "inputs" in str(payload)]
    assert [item.get("speaker") for item in kept] == [None, 1, 108]
    assert sent
    assert all(str(payload).count("'speaker'") == 2 for payload in sent)


async def test_a_job_keeps_the_speakers_that_it_began_with(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    ids = await of_speakers(house, dataset, 0, 1)
    job = await house.train(anna, dataset)
    first = await workers.take()

    changed = await anna.http.patch(f"/api/v1/samples/{ids[1]}", json={"speaker_id": 0})
    await first.finish()
    second = await workers.take()
    await second.fail()
    await house.wait_status(anna, job["id"], "failed")
    await anna.post(f"/training/jobs/{job['id']}/retry")
    again = await workers.take()

    assert changed.json()["speaker_id"] == 0
    assert isinstance(second.command, PrepareDataset)
    assert isinstance(again.command, PrepareDataset)
    assert [[item.speaker for item in taken.command.inputs] for taken in (second, again)] == [[0, 1]] * 2


@pytest.mark.parametrize(
    ("provider", "preset", "options"),
    [
        ("xtts", "xtts-v2", {"language": "en"}),
        ("google", "google-instant", {"language": "en-US", "consent_recording": "smp_1"}),
        ("openai", "openai-custom", {"language": "en", "consent_recording": "smp_1"}),
    ],
)
async def test_a_provider_of_voices_of_one_speaker_refuses_several_wherever_it_is_asked(
    house: House, provider: str, preset: str, options: dict[str, str]
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(2000.0, 2000.0, 2000.0))
    ids = await of_speakers(house, dataset, 0, 7, 7)
    if "consent_recording" in options:
        options = options | {"consent_recording": ids[0]}
    async with house.database.write() as session:
        await session.execute(update(Sample).values(transcript="What is said in it."))
    body = {"dataset_id": dataset, "provider": provider, "options": options}

    refused = await anna.post("/training/jobs", json=body)
    looked = await validation(anna, dataset, preset)
    estimated = (await anna.post("/training/estimate", json=body)).json()
    await of_speakers(house, dataset, 7, 7, 7)
    after = await validation(anna, dataset, preset)

    for problem in (refused.json(), looked["problems"][0]):
        assert (problem["status"], problem["field"], problem["limit"]) == (422, "speaker_id", 1)
        assert "speaker_id 0, 7" in problem["detail"]
        assert f"{provider} makes a voice of one speaker" in problem["detail"]
        assert any("PATCH /api/v1/samples/{id}" in action for action in problem["suggested_actions"])
        assert any("lite" in action for action in problem["suggested_actions"])
    assert (looked["valid"], looked["can_train"]) == (False, False)
    assert estimated["problems"] == [refused.json()["detail"]]
    assert "speaker_id" not in [problem.get("field") for problem in after["problems"]]
    assert after["can_train"] is True
    assert (await anna.get("/training/jobs")).json()["items"] == []


async def test_a_speaker_with_too_little_speech_is_named_before_anything_is_queued(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(30.0, 4.0, 5.5, 9.0, 60.0))
    await of_speakers(house, dataset, 0, 3, 3, 5, 6)

    training = await anna.post("/training/jobs", json={"dataset_id": dataset, "preset": "lite"})
    preparing = await anna.post("/preprocess/jobs", json={"dataset_id": dataset, "preset": "lite"})
    looked = await validation(anna, dataset)
    estimated = (await anna.post("/training/estimate", json={"dataset_id": dataset})).json()
    await of_speakers(house, dataset, 0, 3, 3, 3, 6)
    after = await validation(anna, dataset)

    for problem in (training.json(), preparing.json(), looked["problems"][0]):
        assert (problem["status"], problem["code"], problem["field"]) == (422, "dataset_too_short", "speaker_id")
        assert "speaker_id 3 has 9.5 s, speaker_id 5 has 9.0 s" in problem["detail"]
        assert (problem["speakers"], problem["given_seconds"], problem["needed_seconds"]) == ([3, 5], 9.5, 10.0)
        assert problem["suggested_actions"]
    assert estimated["problems"] == [training.json()["detail"]]
    assert (looked["can_train"], looked["needed_seconds"]) == (False, 10.0)
    assert looked["speakers"] == [
        {"speaker_id": 0, "recordings": 1, "seconds": 30.0},
        {"speaker_id": 3, "recordings": 2, "seconds": 9.5},
        {"speaker_id": 5, "recordings": 1, "seconds": 9.0},
        {"speaker_id": 6, "recordings": 1, "seconds": 60.0},
    ]
    assert after["can_train"] is True
    assert [problem["code"] for problem in after["problems"]] == ["dataset_not_prepared"]
    assert (await anna.get("/training/jobs")).json()["items"] == []


async def test_a_number_for_which_the_network_has_no_place_is_refused(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    await of_speakers(house, dataset, 3, 4)
    body = {"dataset_id": dataset, "preset": "rvc-tiny"}

    training = await anna.post("/training/jobs", json=body)
    preparing = await anna.post("/preprocess/jobs", json=body)
    looked = await validation(anna, dataset, "rvc-tiny")

    for problem in (training.json(), preparing.json(), looked["problems"][0]):
        assert (problem["status"], problem["field"], problem["limit"]) == (422, "speaker_id", 3)
        assert problem["speakers"] == [4]
        assert "has places for speaker_id 0 to 3" in problem["detail"]
    assert (await validation(anna, dataset, "rvc-v2-40k"))["can_train"] is True
    await of_speakers(house, dataset, 0, 3)
    assert (await validation(anna, dataset, "rvc-tiny"))["can_train"] is True


def test_the_gateway_knows_how_many_places_each_network_has() -> None:
    places = {name: preset.speakers for name, preset in PRESETS.items() if name in CONFIGS}

    assert places == {name: config.speakers for name, config in CONFIGS.items()}
    assert PRESETS["lite"].speakers == HIGHEST_SPEAKER + 1


async def test_one_speaker_with_any_number_needs_what_every_voice_needs(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(6.0, 3.0))
    await of_speakers(house, dataset, 5, 5)

    short = (await anna.post("/training/jobs", json={"dataset_id": dataset})).json()
    unnumbered = await house.dataset(anna, "bens")
    plain = await validation(anna, unnumbered)

    assert short["code"] == "dataset_too_short"
    assert short["given_seconds"] == 9.0
    assert "field" not in short
    assert plain["speakers"] == []


async def test_what_was_prepared_is_outdated_when_a_recording_is_somebody_elses(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    ids = await of_speakers(house, dataset, 0, 0)
    await prepare(house, workers, anna, "anna")

    before = await validation(anna, dataset)
    await anna.http.patch(f"/api/v1/samples/{ids[1]}", json={"speaker_id": 1})
    changed = await validation(anna, dataset)
    await anna.http.patch(f"/api/v1/samples/{ids[1]}", json={"speaker_id": 0})
    back = await validation(anna, dataset)

    assert (before["valid"], back["valid"]) == (True, True)
    assert (changed["valid"], changed["can_train"], changed["artifacts"]["is_current"]) == (False, True, False)
    assert "whose they are" in changed["problems"][0]["detail"]


async def test_the_catalogue_says_how_many_speakers_a_voice_can_be(house: House) -> None:
    anna = await house.person()

    listed = (await anna.get("/providers")).json()["items"]

    assert {each["name"]: each["speakers"] for each in listed} == {"rvc": 109, "xtts": 1, "google": 1, "openai": 1}


async def test_a_check_of_clips_is_told_their_speaker_too(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    await of_speakers(house, dataset, 4, 4)
    async with house.database.write() as session:
        await session.execute(update(Sample).values(transcript="What is said in it."))
    workers.work()

    job = await house.train(anna, dataset, provider="xtts", options={"language": "en"})
    await house.wait_status(anna, job["id"], "completed")

    (check,) = [command for command in workers.seen if isinstance(command, CheckSpeech)]
    assert [clip.speaker for clip in check.clips] == [4, 4]
