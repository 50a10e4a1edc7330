"""What do people get to hear when they ask for jobs, rightly and wrongly?"""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from libs.common.bus import Bus
from libs.common.pitch_requests import METHODS
from libs.common.providers import SPEECH_PRESETS
from services.gateway.accounts.tables import Role
from services.gateway.jobs.presets import PRESETS
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import House
from tests.integration.gateway_jobs.scripted_workers import Workers


async def test_a_started_job_answers_202_with_its_place_and_all_fields(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)

    answer = await anna.post("/training/jobs", json={"exp_name": "anna", "options": {"epochs": 10}, "priority": 80})

    job = answer.json()
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/v1/training/jobs/{job['id']}"
    assert job["id"].startswith("job_")
    assert (job["status"], job["phase"], job["queue_state"]) == ("queued", "validate", "waiting")
    assert (job["kind"], job["dataset_id"], job["dataset"], job["voice"]) == ("training", dataset, "anna", "anna")
    assert job["preset"] == job["options"]["preset"] == "lite"
    assert job["options"]["epochs"] == 10
    assert job["options"]["batch_size"] is None
    assert (job["progress"], job["attempt"], job["priority"]) == (0, 1, 80)
    assert (job["name"], job["current_step"], job["total_steps"]) == ("anna", 0, 0)
    assert (job["current_loss"], job["started_at"], job["finished_at"], job["error"]) == (None, None, None, None)
    assert job["created_at"] == job["queued_at"]
    assert job["estimated_seconds"] > 0
    assert job["estimated_cost"] > 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1001}, "epochs"),
        ({"batch_size": 65}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"validation_split": 0.6}, "validation_split"),
        ({"early_stopping_patience": 0}, "early_stopping_patience"),
        ({"train_seconds": -5}, "train_seconds"),
        ({"seed": -1}, "seed"),
        ({"f0_method": "../etc"}, "f0_method"),
        ({"epoch": 5}, "epoch"),
    ],
)
async def test_an_option_out_of_its_range_is_refused_by_name(
    house: House, options: dict[str, object], field: str
) -> None:
    anna = await house.person()
    await house.dataset(anna)

    answer = await anna.post("/training/jobs", json={"exp_name": "anna", "options": options})

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert field in answer.json()["detail"]


@pytest.mark.parametrize(
    ("path", "field"), [("/training/jobs", "options.f0_method"), ("/preprocess/jobs", "f0_method")]
)
async def test_a_pitch_method_that_exists_nowhere_is_refused_with_the_methods_there_are(
    house: House, path: str, field: str
) -> None:
    anna = await house.person()
    await house.dataset(anna)

    async def ask(method: str) -> httpx.Response:
        asked = {"f0_method": method}
        return await anna.post(path, json={"exp_name": "anna"} | ({"options": asked} if "options" in field else asked))

    unknown, partly, twice = await ask("magic"), await ask("hybrid[swift+magic]"), await ask("hybrid[praat+pm]")

    assert [(a.status_code, a.json()["field"]) for a in (unknown, partly, twice)] == [(422, field)] * 3
    assert f"choose one of {', '.join(METHODS)}" in unknown.json()["detail"]
    assert "hybrid[swift+magic]" in partly.json()["detail"]
    assert "two to 5 different" in twice.json()["detail"]
    assert (await anna.get(path)).json()["items"] == []
    assert (await ask("hybrid[rmvpe+crepe]")).status_code == 202


async def test_an_unknown_preset_is_refused_with_the_list_of_presets(house: House) -> None:
    anna = await house.person()
    await house.dataset(anna)

    answer = await anna.post("/training/jobs", json={"exp_name": "anna", "preset": "gpt"})

    assert answer.status_code == 422
    assert answer.json()["presets"] == list(PRESETS)
    assert "lite" in answer.json()["detail"]


async def test_the_gateway_knows_the_presets_that_the_trainer_has() -> None:
    trainer = pytest.importorskip("libs.voice.training_config")
    rvc = {name: preset for name, preset in PRESETS.items() if name not in SPEECH_PRESETS}

    assert set(rvc) == set(trainer.PRESETS)
    assert {n for n, p in rvc.items() if p.needs_gpu} == {n for n, p in trainer.PRESETS.items() if p.needs_gpu}


async def test_an_empty_and_a_too_short_dataset_are_refused_before_queueing(house: House) -> None:
    anna = await house.person()
    await house.dataset(anna, "empty", ())
    await house.dataset(anna, "short", (4.0, 2.5))

    empty = await anna.post("/training/jobs", json={"exp_name": "empty"})
    short = await anna.post("/training/jobs", json={"exp_name": "short"})

    assert (empty.status_code, empty.json()["code"]) == (422, "dataset_empty")
    assert (short.status_code, short.json()["code"]) == (422, "dataset_too_short")
    assert short.json()["given_seconds"] == 6.5
    assert short.json()["needed_seconds"] == 10
    assert short.json()["suggested_actions"]
    assert (await anna.get("/training/jobs")).json()["items"] == []


async def test_unknown_and_strangers_datasets_and_jobs_are_not_there(house: House) -> None:
    anna, ben = await house.person("anna"), await house.person("ben")
    dataset = await house.dataset(anna)
    job = await house.train(anna, dataset)

    answers = [
        await ben.post("/training/jobs", json={"dataset_id": dataset}),
        await ben.post("/training/jobs", json={"exp_name": "anna"}),
        await ben.post("/preprocess/jobs", json={"exp_name": "anna"}),
        await ben.post("/datasets/anna/validate"),
        await ben.get("/datasets/anna/artifacts"),
        *[await ben.get(f"/training/jobs/{job['id']}{tail}") for tail in ("", "/logs", "/events", "/metrics")],
        await ben.post(f"/training/jobs/{job['id']}/cancel"),
        await ben.post(f"/training/jobs/{job['id']}/retry"),
        await ben.get("/training/jobs/job_nobody"),
        await anna.get(f"/preprocess/jobs/{job['id']}"),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert {answer.json()["code"] for answer in answers} == {"not_found"}


async def test_a_request_without_a_dataset_says_what_to_send(house: House) -> None:
    anna = await house.person()

    answer = await anna.post("/training/jobs", json={})

    assert answer.status_code == 422
    assert "exp_name" in answer.json()["detail"]


async def test_viewers_look_and_do_not_start(house: House) -> None:
    viewer = await house.person("vera", Role.viewer)
    await house.dataset(viewer)

    refused = await viewer.post("/training/jobs", json={"exp_name": "anna"})
    seen = await viewer.get("/training/jobs")

    assert refused.status_code == 403
    assert seen.status_code == 200


async def test_one_training_job_per_dataset_at_a_time(house: House, workers: Workers) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    first = await house.train(anna, dataset)

    second = await anna.post("/training/jobs", json={"dataset_id": dataset})
    other_kind = await anna.post("/preprocess/jobs", json={"dataset_id": dataset})
    await anna.post(f"/training/jobs/{first['id']}/cancel")
    third = await anna.post("/training/jobs", json={"dataset_id": dataset})
    retried = await anna.post(f"/training/jobs/{first['id']}/retry")

    assert (second.status_code, second.json()["code"]) == (409, "conflict")
    assert "'anna'" in second.json()["detail"]
    assert other_kind.status_code == 202
    assert third.status_code == 202
    assert retried.status_code == 409


async def test_twenty_requests_at_once_start_one_job(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)

    answers = await asyncio.gather(*(anna.post("/training/jobs", json={"dataset_id": dataset}) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 19


async def test_the_same_idempotency_key_gives_the_same_job(house: House) -> None:
    anna = await house.person()
    dataset = await house.dataset(anna)
    key = {"Idempotency-Key": "one-click"}

    first = await anna.post("/training/jobs", json={"dataset_id": dataset}, headers=key)
    again = await anna.post("/training/jobs", json={"dataset_id": dataset}, headers=key)
    misused = await anna.post("/training/jobs", json={"dataset_id": dataset, "priority": 1}, headers=key)

    assert first.status_code == again.status_code == 202
    assert first.json()["id"] == again.json()["id"]
    assert misused.status_code == 422


async def test_the_preset_follows_the_trainers_device(house: House, bus: Bus) -> None:
    anna = await house.person()
    await house.dataset(anna, "one")
    await house.dataset(anna, "two")
    await house.reach_broker()
    await bus.bucket("workers").put("trainer-a-1", json.dumps({"service": "trainer", "device": "cuda:0"}).encode())

    on_gpu = await anna.post("/training/jobs", json={"exp_name": "one"})
    await bus.bucket("workers").put("trainer-b-1", json.dumps({"service": "trainer", "device": "cpu"}).encode())
    mixed = await anna.post("/training/jobs", json={"exp_name": "two"})

    assert on_gpu.json()["preset"] == "rvc-v2-40k"
    assert mixed.json()["preset"] == "lite"


@pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])
async def test_strange_characters_are_refused_and_never_an_error_of_the_platform(house: House) -> None:
    anna = await house.person()
    await house.dataset(anna)

    answers = [
        await anna.post("/training/jobs", json={"exp_name": "anna", "name": "a\u0000b"}),
        await anna.post("/training/jobs", json={"exp_name": "an\u0000na"}),
        await anna.post("/preprocess/jobs", json={"dataset_id": "\u0000"}),
        await anna.post("/training/jobs", json={"exp_name": "../../etc/passwd"}),
        await anna.post("/training/jobs", json={"exp_name": "anna", "priority": 101}),
        await anna.get("/training/jobs", params={"q": "\0"}),
        await anna.get("/training/jobs", params={"cursor": "'; drop"}),
        await anna.get("/training/jobs", params={"dataset_id": "\0"}),
        await anna.get("/training/jobs/%00"),
        await anna.post("/training/jobs/%00/cancel"),
        await anna.get("/datasets/%00/artifacts"),
        await anna.post("/datasets/a%2F..%2Fb/validate"),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422, 404, 422, 422, 422, 422, 404, 404, 404, 404]


async def test_a_feed_without_a_broker_is_503(house: House, nats_server: NatsServer) -> None:
    anna = await house.person()
    job = await house.train(anna, await house.dataset(anna))
    nats_server.kill()

    feed = await anna.get(f"/training/jobs/{job['id']}/events")
    row = await anna.get(f"/training/jobs/{job['id']}")

    assert (feed.status_code, feed.json()["code"]) == (503, "unavailable")
    assert row.status_code == 200
