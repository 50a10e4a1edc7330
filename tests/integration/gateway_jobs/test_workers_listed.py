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
