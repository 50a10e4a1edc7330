"""Does all that a service says have one form, from its very first word on?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.common.settings import PORTS
from scripts.processes import free_port
from tests.conftest import TOKEN


def spoken(service: str, folder: Path) -> list[str]:
    """What a service writes to standard error until it starts to serve, with nothing left out."""
    environment = {
        **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG")},
        "ENVIRONMENT": "development",
        "SERVICE_TOKEN": TOKEN,
        "ADMIN_PASSWORD": "a-long-password",
        "DATA_ROOT": str(folder / "data"),
        "MODELS_ROOT": str(folder / "models"),
        "ASSETS_ROOT": str(folder / "assets"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/gateway.db",
        "NATS_URL": f"nats://127.0.0.1:{free_port()}",
        "PORT": str(free_port()),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "DEBUG",
        "LOG_FILES": "false",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", f"services.{service}"], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = []
    try:
        for line in process.stderr:
            lines.append(line)
            if "service.starting" in line:
                break
    finally:
        process.kill()
        process.stderr.close()
        process.wait()
    return lines


@pytest.mark.parametrize("service", PORTS)
def test_all_that_a_service_says_is_in_the_form_that_was_asked_for(service: str, tmp_path: Path) -> None:
    said = [json.loads(line) for line in spoken(service, tmp_path)]

    assert said[-1]["event"] == "service.starting"
    assert {line["service"] for line in said} == {service}


@pytest.mark.parametrize("service", PORTS)
def test_a_service_says_where_its_folders_and_its_optional_files_are_before_it_serves(
    service: str, tmp_path: Path
) -> None:
    hubert = tmp_path / "assets" / "hubert" / "hubert_base.pt"
    hubert.parent.mkdir(parents=True)
    hubert.touch()

    starting = json.loads(spoken(service, tmp_path)[-1])

    assert [starting[name] for name in ("data_root", "uploads_dir", "models_root", "assets_root")] == [
        str(tmp_path / place) for place in ("data", "data/uploads", "models", "assets")
    ]
    assert starting["hubert"] == f"{hubert} (present)"
    assert starting["rmvpe"] == f"{tmp_path}/assets/rmvpe/rmvpe.pt (absent)"


def test_a_machine_without_a_card_is_told_in_that_form_too(tmp_path: Path) -> None:
    if any(Path("/dev").glob("nvidia[0-9]*")):
        pytest.skip("there is a card here")

    said = [json.loads(line)["event"] for line in spoken("trainer", tmp_path)]

    assert "gpu.none" in said
