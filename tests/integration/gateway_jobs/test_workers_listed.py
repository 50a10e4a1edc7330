"""Who sees which worker does whose job?"""

from __future__ import annotations

import json

from libs.common.bus import Bus
from services.gateway.accounts.tables import Role
from tests.integration.gateway_jobs.conftest import House


async def test_only_an_administrator_sees_which_jobs_a_worker_has(house: House, bus: Bus) -> None:
    await house.reach_broker()
    entry = {"service": "trainer", "worker": "trainer-1", "device": "cpu", "jobs": ["job_of_somebody"]}
    await bus.bucket("workers").put("trainer-1", json.dumps(entry).encode())
    anna = await house.person("anna")
    admin = await house.person("root", role=Role.admin)

    (seen,) = (await anna.get("/system/services")).json()["workers"]
    (known,) = (await admin.get("/system/services")).json()["workers"]

    assert seen["jobs_in_hand"] == known["jobs_in_hand"] == 1
    assert "jobs" not in seen
    assert known["jobs"] == ["job_of_somebody"]


async def test_what_no_worker_can_use_is_refused_before_anything_is_queued(house: House, bus: Bus) -> None:
    await house.reach_broker()
    entry = {"f0_absent": {"rmvpe": "its weights are not installed: put rmvpe.pt where RMVPE_PATH says"}}
    for service in ("preprocessor", "inference"):
        told = entry | {"service": service, "worker": f"{service}-1", "has_hubert": False}
        await bus.bucket("workers").put(f"{service}-1", json.dumps(told).encode())
    anna = await house.person("anna")
    dataset = await house.dataset(anna)

    refusals = [
        await anna.post("/training/jobs", json={"dataset_id": dataset, "options": {"f0_method": "rmvpe"}}),
        await anna.post("/training/jobs", json={"dataset_id": dataset, "preset": "rvc-v1-40k"}),
        await anna.post("/preprocess/jobs", json={"dataset_id": dataset, "f0_method": "hybrid[dio+rmvpe]"}),
    ]
    looked_at = (await anna.post(f"/datasets/{dataset}/validate?preset=rvc-v1-40k")).json()
    accepted = await anna.post("/preprocess/jobs", json={"dataset_id": dataset, "f0_method": "dio"})

    assert [answer.status_code for answer in refusals] == [422, 422, 422]
    assert [answer.json()["field"] for answer in refusals] == ["options.f0_method", "preset", "f0_method"]
    assert "rmvpe.pt" in refusals[0].json()["detail"]
    assert (await anna.get("/training/jobs")).json()["items"] == []
    assert (looked_at["can_train"], looked_at["problems"][0]["field"]) == (False, "preset")
    assert accepted.status_code == 202
