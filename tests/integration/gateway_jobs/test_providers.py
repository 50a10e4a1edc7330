"""Which providers can be chosen, what do they cost, and what is refused before anything is queued?"""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import update

from libs.common.bus import Bus
from libs.common.errors import InvalidInput
from libs.common.events import CheckSpeech, PublishVoice, TrainVoice
from libs.common.jobs import SPEECH_STEPS
from services.gateway.accounts.current import Caller
from services.gateway.accounts.tables import Role
from services.gateway.database import new_id
from services.gateway.datasets.tables import Sample
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice, VoiceStatus
from tests.integration.gateway_jobs.conftest import House, Person
from tests.integration.gateway_jobs.scripted_workers import Workers

HERE = {"available": True, "missing": [], "how": ""}
NO_LIBRARY = {"available": False, "missing": ["the package coqui-tts"], "how": "Run scripts/install-xtts."}
ENGLISH = {"language": "en"}


async def a_trainer(bus: Bus, name: str = "trainer-1", device: str = "cpu", **providers: Any) -> None:
    entry = {"service": "trainer", "worker": name, "device": device, "providers": {"rvc": HERE} | providers}
    await bus.bucket("workers").put(name, json.dumps(entry).encode())


async def write_down(house: House, dataset: str, text: str = "What is said in it.") -> None:
    async with house.database.write() as session:
        await session.execute(update(Sample).where(Sample.dataset_id == dataset).values(transcript=text))


async def providers_of(person: Person) -> dict[str, dict[str, Any]]:
    answer = await person.get("/providers")
    assert answer.status_code == 200
    return {item["name"]: item for item in answer.json()["items"]}


async def test_the_catalogue_has_the_facts_of_the_document(house: House) -> None:
    listed = await providers_of(await house.person())

    assert list(listed) == ["rvc", "xtts", "google", "openai"]
    xtts, google, openai = listed["xtts"], listed["google"], listed["openai"]
    assert xtts["training_minutes"] == {"least": 10, "most": 30}
    assert xtts["audio"]["speech_seconds"] == {"least": 60, "most": 300}
    assert xtts["audio"]["clip_seconds"] == {"least": 0.5, "most": 11.6}
    assert "$2.50" in xtts["price"]
    assert google["training_minutes"] == {"least": 120, "most": 240}
    assert google["audio"]["speech_seconds"] == {"least": 1800, "most": None}
    assert "$300" in google["price"]
    assert openai["training_minutes"] == {"least": 60, "most": 120}
    assert openai["audio"]["speech_seconds"] == {"least": 300, "most": 900}
    assert "$0.008" in openai["price"]
    assert [each["kind"] for each in listed.values()] == ["conversion", "speech", "speech", "speech"]
    assert [each["audio"]["consent_recording"] for each in listed.values()] == [False, False, True, True]
    assert all(each["best_for"] and each["quality"] for each in listed.values())


async def test_what_is_missing_is_what_the_trainer_says_that_lacks_least(house: House, bus: Bus) -> None:
    anna = await house.person()
    await house.reach_broker()

    before = await providers_of(anna)
    worse = NO_LIBRARY | {"missing": ["the package coqui-tts", "model.pth"]}
    await a_trainer(bus, "trainer-1", xtts=worse)
    await a_trainer(bus, "trainer-2", xtts=NO_LIBRARY)
    without = (await providers_of(anna))["xtts"]
    await a_trainer(bus, "trainer-3", xtts=HERE)
    with_it = (await providers_of(anna))["xtts"]

    assert {name: each["available"] for name, each in before.items()} == dict.fromkeys(before, False)
    assert before["rvc"]["missing"] == ["no trainer is running"]
    assert (without["available"], without["missing"]) == (False, ["the package coqui-tts"])
    assert without["how"] == "Run scripts/install-xtts."
    assert (with_it["available"], with_it["missing"]) == (True, [])


async def test_an_estimate_says_time_cost_and_hardware_and_starts_nothing(house: House, bus: Bus) -> None:
    anna = await house.person()
    await house.reach_broker()
    await a_trainer(bus, xtts=HERE, device="cuda:0")
    dataset = await house.dataset(anna)
    await write_down(house, dataset)

    answer = await anna.post(
        "/training/estimate", json={"dataset_id": dataset, "provider": "xtts", "options": ENGLISH | {"epochs": 100}}
    )

    made = answer.json()
    assert answer.status_code == 200
    assert (made["provider"], made["preset"], made["hardware"]) == ("xtts", "xtts-v2", "cuda")
    assert made["estimated_time_ms"] == made["estimated_seconds"] * 1000 == pytest.approx(650_000)
    assert made["estimated_cost"] == pytest.approx(650 / 3600 * 2.5 + 1.82 * 0.02, abs=1e-3)
    assert (made["recordings"], made["speech_seconds"], made["problems"]) == (2, 70, [])
    assert (await anna.get("/training/jobs")).json()["items"] == []


async def test_an_estimate_is_that_of_the_job_and_names_what_would_be_refused(house: House, bus: Bus) -> None:
    anna = await house.person()
    await house.reach_broker()
    await a_trainer(bus, google=HERE)
    dataset = await house.dataset(anna)

    google = await anna.post("/training/estimate", json={"dataset_id": dataset, "provider": "google"})
    rvc = (await anna.post("/training/estimate", json={"dataset_id": dataset})).json()
    job = await house.train(anna, dataset)

    assert google.json()["estimated_cost"] == pytest.approx(350.0, abs=0.01)
    assert "options.language" not in rvc["problems"]
    assert "which language" in google.json()["problems"][0]
    assert (rvc["estimated_seconds"], rvc["estimated_cost"]) == (job["estimated_seconds"], job["estimated_cost"])


async def test_a_speaking_voice_takes_four_steps_with_the_clips_and_their_texts(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    await write_down(house, dataset, "Good morning.")
    workers.work()

    job = await house.train(anna, dataset, provider="xtts", options=ENGLISH)
    done = await house.wait_status(anna, job["id"], "completed")

    assert [command.step for command in workers.seen] == list(SPEECH_STEPS)
    _, check, train, publish = workers.seen
    assert isinstance(check, CheckSpeech)
    assert [(clip.transcript, clip.name, clip.seconds) for clip in check.clips] == [
        ("Good morning.", "0.wav", 30.0),
        ("Good morning.", "1.wav", 40.0),
    ]
    assert isinstance(train, TrainVoice)
    assert (train.options.preset, train.options.language) == ("xtts-v2", "en")
    assert isinstance(publish, PublishVoice)
    assert (publish.preset, publish.indexed, publish.evaluated) == ("xtts-v2", None, None)
    assert (done["preset"], done["progress"]) == ("xtts-v2", 100)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"provider": "nobody"}, "provider"),
        ({"provider": "xtts", "preset": "lite", "options": ENGLISH}, "preset"),
        ({"provider": "xtts"}, "options.language"),
        ({"provider": "xtts", "options": {"language": "tlh"}}, "options.language"),
        ({"provider": "xtts", "options": ENGLISH | {"dropout": 0.1}}, "options.dropout"),
        ({"provider": "xtts", "options": ENGLISH}, "transcript"),
        ({"provider": "rvc", "options": ENGLISH}, "options.language"),
        ({"provider": "rvc", "options": {"transcribe": True}}, "options.transcribe"),
        ({"provider": "google", "options": {"language": "en-US", "transcribe": True}}, "options.transcribe"),
        ({"provider": "openai", "options": ENGLISH}, "options.consent_recording"),
        ({"provider": "openai", "options": ENGLISH | {"consent_recording": "smp_1"}}, "options.consent_recording"),
        ({"provider": "google", "options": {"language": "en-US", "epochs": 3}}, "options.epochs"),
    ],
)
async def test_what_a_provider_cannot_take_is_refused_by_field(house: House, asked: dict[str, Any], field: str) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(400.0, 40.0))

    answer = await anna.post("/training/jobs", json={"dataset_id": dataset} | asked)

    assert answer.status_code == 422
    assert answer.json()["field"] == field
    assert (await anna.get("/training/jobs")).json()["items"] == []


async def test_a_dataset_without_a_text_is_taken_when_a_machine_shall_write_them(
    house: House, workers: Workers
) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    workers.work()

    job = await house.train(anna, dataset, provider="xtts", options=ENGLISH | {"transcribe": True})
    await house.wait_status(anna, job["id"], "completed")

    _, check, *_ = workers.seen
    assert isinstance(check, CheckSpeech)
    assert check.options.transcribe
    assert {clip.transcript for clip in check.clips} == {""}


async def test_too_little_speech_for_the_provider_is_refused_with_both_numbers(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(20.0, 30.0))
    await write_down(house, dataset)

    answer = await anna.post("/training/jobs", json={"dataset_id": dataset, "provider": "xtts", "options": ENGLISH})

    assert answer.status_code == 422
    assert (answer.json()["given_seconds"], answer.json()["needed_seconds"]) == (50.0, 60.0)


async def test_a_provider_that_no_trainer_can_use_is_refused_with_the_way_to_get_it(house: House, bus: Bus) -> None:
    anna = await house.person()
    await house.reach_broker()
    await a_trainer(bus, xtts=NO_LIBRARY)
    dataset = await house.dataset(anna)
    await write_down(house, dataset)

    answer = await anna.post("/training/jobs", json={"dataset_id": dataset, "provider": "xtts", "options": ENGLISH})

    assert answer.status_code == 503
    assert answer.json()["code"] == "provider_unavailable"
    assert answer.json()["retryable"] is False
    assert "coqui-tts" in answer.json()["detail"]
    assert answer.json()["suggested_actions"] == ["Run scripts/install-xtts."]


async def test_nothing_is_prepared_apart_for_a_voice_that_speaks(house: House) -> None:
    anna = await house.person()

    answer = await anna.post("/preprocess/jobs", json={"dataset_id": await house.dataset(anna), "preset": "xtts-v2"})

    assert (answer.status_code, answer.json()["field"]) == (422, "preset")


async def test_a_dataset_is_looked_at_for_a_voice_that_speaks_without_starting_anything(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna, seconds=(8.0, 0.2, 20.0, 50.0))

    async def asked(language: str = "") -> dict[str, Any]:
        return (await anna.post(f"/datasets/{dataset}/validate?preset=xtts-v2{language}")).json()

    without = await asked("&language=en")
    await write_down(house, dataset)
    with_texts, english, german = await asked(), await asked("&language=en"), await asked("&language=de")

    assert (without["valid"], without["can_train"], without["needed_seconds"]) == (False, False, 60)
    assert "none of the 4 recordings has a transcript" in without["problems"][0]["detail"]
    assert (with_texts["valid"], with_texts["can_train"]) == (False, True)
    assert [problem["names"] for problem in with_texts["problems"]] == [["1.wav", "2.wav", "3.wav"]]
    assert "0.5 to 11.6 s" in with_texts["problems"][0]["detail"]
    assert "language=en" in with_texts["problems"][0]["suggested_actions"][0]
    assert [problem["names"] for problem in english["problems"]] == [["1.wav"]]  # the others are cut
    assert [problem["names"] for problem in german["problems"]] == [["1.wav", "2.wav", "3.wav"]]
    assert german["problems"][0]["suggested_actions"] == []


async def test_a_training_above_its_limit_or_the_days_is_refused_with_the_settings_name(house: House) -> None:
    anna = await house.person()
    first, second = await house.dataset(anna, "one"), await house.dataset(anna, "two")
    settings = house.app.state.parts.settings
    settings.max_training_cost = 0.01
    too_dear = await anna.post("/training/jobs", json={"dataset_id": first})
    settings.max_training_cost = 100.0
    job = await house.train(anna, first)
    settings.daily_training_budget = 1.5 * job["estimated_cost"]
    too_much = await anna.post("/training/jobs", json={"dataset_id": second})
    settings.daily_training_budget = 2 * job["estimated_cost"]
    just_enough = await anna.post("/training/jobs", json={"dataset_id": second})

    assert too_dear.status_code == too_much.status_code == 422
    assert too_dear.json()["code"] == too_much.json()["code"] == "budget_exceeded"
    assert "MAX_TRAINING_COST" in too_dear.json()["detail"]
    assert "DAILY_TRAINING_BUDGET" in too_much.json()["detail"]
    assert too_much.json()["spent"] == pytest.approx(job["estimated_cost"])
    assert just_enough.status_code == 202


async def test_a_voice_that_speaks_text_is_refused_where_recordings_are_converted(house: House) -> None:
    anna = await house.person()
    async with house.database.write() as session:
        for slug, card in (("speaker", {"kind": "xtts"}), ("singer", {})):
            session.add(
                Voice(
                    id=new_id("vox"),
                    owner_id=anna.id,
                    slug=slug,
                    name=slug,
                    status=VoiceStatus.ready.value,
                    job_id=new_id("job"),
                    card=card,
                )
            )

    merged = await anna.post("/models/merge", json={"first": "singer", "second": "speaker", "name": "Both"})

    assert merged.status_code == 422
    assert "'speaker' speaks text" in merged.json()["detail"]
    assert merged.json()["field"] == "voice"
    async with house.database.read() as session:
        caller = Caller(id=anna.id, email="anna@example.org", name="Anna", role=Role.creator)
        assert (await registry.find_ready(session, caller, "speaker", to="speak")).slug == "speaker"
        with pytest.raises(InvalidInput, match="does not speak"):
            await registry.find_ready(session, caller, "singer", to="speak")
