"""Do the jobs of a restored platform go on, whatever its broker knows?"""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from libs.common.jobs import STEPS, JobKind
from services.gateway.backup.making import make
from services.gateway.backup.restoring import restore
from services.gateway.database import Database
from services.gateway.settings import GatewaySettings
from tests.conftest import NatsServer
from tests.integration.gateway_jobs.conftest import SOON_AGAIN, running_house
from tests.integration.gateway_jobs.scripted_workers import Workers


@SOON_AGAIN
@pytest.mark.parametrize("broker", ["empty", "as it was"])
async def test_a_job_that_was_in_hand_is_asked_for_again_after_a_restore(
    settings: GatewaySettings, database: Database, nats_server: NatsServer, tmp_path: Path, broker: str
) -> None:
    kept = io.BytesIO()
    workers = Workers(settings)
    async with running_house(settings, database) as house:
        await workers.open()
        anna = await house.person()
        job = await house.train(anna, await house.dataset(anna))
        await (await workers.take()).start()
        await house.wait_status(anna, job["id"], "running")
        await make(settings, kept)
    await workers.close()
    kept.seek(0)
    if broker == "empty":
        nats_server.lose_store()
    there = tmp_path / "there"
    elsewhere = settings.model_copy(
        update={
            "data_root": there / "data",
            "uploads_dir": there / "data" / "uploads",
            "models_root": there / "models",
            "database_url": f"sqlite+aiosqlite:///{there}/gateway.db",
            "storage_url": (there / "objects").as_uri(),
            "gateway_url": "http://127.0.0.1:1",
        }
    )

    await restore(elsewhere, kept)

    restored = Database(elsewhere)
    workers = Workers(elsewhere)
    async with running_house(elsewhere, restored) as house:
        await house.reach_broker()
        await workers.open()
        workers.work()
        done = await house.wait_status(house.known(anna.id), job["id"], "completed")
        await workers.close()
    await restored.close()
    assert done["progress"] == 100
    assert workers.seen[-1].step == STEPS[JobKind.training][-1]
