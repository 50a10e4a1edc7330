"""What the workers need to be ready, and how little they need while idle."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import httpx
import pytest

from libs.common.jobs import Lane
from scripts.processes import free_port
from services.gateway.workers import announced
from tests.integration.voice_services.parts import prepared_tones
from tests.integration.voice_services.platform import Platform, loaded_libraries, resident_megabytes, train
from tests.waiting import PATIENCE, until


@pytest.mark.parametrize(("service", "variable"), [("trainer", "MODELS_ROOT"), ("preprocessor", "DATA_ROOT")])
async def test_a_folder_that_cannot_be_written_is_said_at_start_and_in_readyz(
    here: Platform, tmp_path: Path, service: str, variable: str
) -> None:
    (tmp_path / "file").write_text("no folder")

    started = here.start(service, **{variable: tmp_path / "file" / "below"})
    await started.wait_for_words("service.not_ready")
    await started.wait_for_words(str(tmp_path / "file" / "below"))
    await started.wait_for_words("startup complete")

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.get(f"{started.url}/readyz")
        alive = await client.get(f"{started.url}/livez")
    assert answer.status_code == 503
    wrong = [check for check in answer.json()["checks"] if not check["ok"]]
    assert variable in wrong[0]["detail"]
    assert str(tmp_path) not in answer.text
    assert alive.status_code == 200


@pytest.mark.parametrize("service", ["preprocessor", "trainer"])
async def test_a_worker_answers_while_it_waits_for_its_broker(here: Platform, service: str) -> None:
    started = here.start(service, NATS_URL=f"nats://127.0.0.1:{free_port()}")
    await started.wait_for_words("startup complete")

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        alive = await client.get(f"{started.url}/livez")
        ready = await client.get(f"{started.url}/readyz")
    started.signal(signal.SIGTERM)

    assert alive.status_code == 200
    wrong = [check for check in ready.json()["checks"] if not check["ok"]]
    assert (ready.status_code, [check["name"] for check in wrong]) == (503, ["broker"])
    assert await asyncio.to_thread(started.process.wait, PATIENCE) in (0, -signal.SIGTERM)


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
async def test_a_trainer_without_the_gpu_that_it_should_use_takes_no_work(here: Platform) -> None:
    trainer = here.start("trainer", TRAINING_DEVICE="cuda")
    await here.bus.send_command(train("job_1", prepared_tones(here.paths), total_steps=5), Lane.normal)
    await trainer.wait_for_words("service.not_ready")
    await trainer.wait_for_words("startup complete")

    async with httpx.AsyncClient(timeout=PATIENCE) as client:
        answer = await client.get(f"{trainer.url}/readyz")
    await here.started("trainer")
    trained = await here.events.wait_for("trained", seconds=100)

    wrong = [check for check in answer.json()["checks"] if not check["ok"]]
    assert (answer.status_code, [check["name"] for check in wrong]) == (503, ["device"])
    assert "cuda" in wrong[0]["detail"]
    assert str(trainer.pid) not in trained.worker


async def test_a_trainer_announces_how_many_trainings_it_takes_at_a_time(here: Platform) -> None:
    await here.started("trainer", TRAINING_CONCURRENCY=3)

    async def slots() -> dict[str, int] | None:
        found = {worker["service"]: worker["slots"] for worker in await announced(here.bus)}
        return found if len(found) == 2 else None  # one worker for trainings, one for short work

    assert await until(slots) == {"trainer": 3, "models": 1}


async def test_idle_workers_are_light(here: Platform) -> None:
    for name in ("preprocessor", "trainer"):
        service = await here.started(name)

        assert "libtorch" not in loaded_libraries(service.pid)
        assert "numpy" not in loaded_libraries(service.pid)
        assert resident_megabytes(service.pid) < 150
