"""What the workers need to be ready, and how little they need while idle."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.integration.voice_services.platform import Platform, loaded_libraries, resident_megabytes


@pytest.mark.parametrize(("service", "variable"), [("trainer", "MODELS_ROOT"), ("preprocessor", "DATA_ROOT")])
async def test_a_folder_that_cannot_be_written_is_said_at_start_and_in_readyz(
    here: Platform, tmp_path: Path, service: str, variable: str
) -> None:
    (tmp_path / "file").write_text("no folder")

    started = here.start(service, **{variable: tmp_path / "file" / "below"})
    await started.wait_for_words("service.not_ready")
    await started.wait_for_words("startup complete")

    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{started.url}/readyz")
        alive = await client.get(f"{started.url}/livez")
    assert answer.status_code == 503
    wrong = [check for check in answer.json()["checks"] if not check["ok"]]
    assert str(tmp_path / "file" / "below") in wrong[0]["detail"]
    assert alive.status_code == 200


async def test_idle_workers_are_light(here: Platform) -> None:
    for name in ("preprocessor", "trainer"):
        service = await here.started(name)

        assert "libtorch" not in loaded_libraries(service.pid)
        assert "numpy" not in loaded_libraries(service.pid)
        assert resident_megabytes(service.pid) < 150
