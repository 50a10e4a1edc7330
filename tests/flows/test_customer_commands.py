"""The eight curl commands of the customer's validation list work as written, plus a token."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from scripts import customer_commands
from tests.factories_audio import make_speech
from tests.flows.conftest import Platform


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_speech(40.0, "en-us", tmp_path / "sample.wav")
    return tmp_path


def run(platform: Platform, folder: Path, name: str, job_id: str = "", *, token: bool = True) -> tuple[int, Any]:
    """Runs one command in `folder` with this stack's ports; returns the status and the body."""
    urls = {service: platform.stack.url(service) for service in ("preprocessor", "trainer")}
    return customer_commands.run(name, folder, urls, platform.client.connection.token if token else None, job_id)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_eight_commands_lead_from_a_recording_to_a_voice(platform: Platform, folder: Path) -> None:
    for name in ("preprocessor health", "trainer health"):
        status, body = run(platform, folder, name, token=False)
        assert (status, body["status"]) == (200, "ready")

    status, body = run(platform, folder, "upload")
    assert status == 201, body
    status, body = run(platform, folder, "start preprocessing")
    assert status == 202, body
    prepared = platform.finished(body["job_id"])
    assert prepared.status == "completed", prepared.error
    status, body = run(platform, folder, "preprocessing status", prepared.id)
    assert (status, body["status"]) == (200, "completed")
    status, body = run(platform, folder, "validate")
    assert (status, body["valid"]) == (200, True)

    status, body = run(platform, folder, "start training")
    assert status == 202, body
    assert body["preset"] == "lite", "without a preset the answer says what this machine can train"
    assert body["options"]["epochs"] == 10
    trained = platform.finished(body["job_id"])
    assert trained.status == "completed", trained.error
    status, body = run(platform, folder, "training status", trained.id)
    assert (status, body["status"]) == (200, "completed")

    models = platform.stack.root / "models" / "test_model"
    assert (models / "test_model.pth").is_file()
    assert (models / "test_model.index").is_file()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_commands_without_a_token_are_refused(platform: Platform, folder: Path) -> None:
    for name in ("upload", "start preprocessing", "validate", "start training"):
        status, body = run(platform, folder, name, token=False)

        assert status == 401, name
        assert body["code"] == "unauthenticated"
