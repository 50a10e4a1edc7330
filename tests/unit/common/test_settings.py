"""Settings have the defaults of the architecture page, and refuse what cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from libs.common.settings import PORTS, CommonSettings
from services.ingest.settings import IngestSettings

TOKEN = "x" * 16
PROJECT = Path(__file__).resolve().parents[3]


def test_the_shipped_times_are_those_of_the_documents() -> None:
    settings = CommonSettings(service_token=TOKEN)

    assert settings.retry_delays == (timedelta(seconds=5), timedelta(seconds=25), timedelta(seconds=125))
    assert settings.heartbeat * 2 <= settings.lease_ttl
    assert settings.lease_ttl <= settings.ack_wait


def test_containers_use_the_fixed_mounts() -> None:
    settings = CommonSettings(service_token=TOKEN, environment="container")

    assert settings.data_root == Path("/data")
    assert settings.uploads_dir == Path("/data/uploads")
    assert settings.models_root == Path("/models")
    assert settings.hubert_path == Path("/assets/hubert/hubert_base.pt")
    assert settings.nats_url == "nats://nats:4222"
    assert settings.gateway_url == "http://gateway:8000"


def test_a_given_value_wins_over_the_default_of_the_environment() -> None:
    settings = CommonSettings(service_token=TOKEN, environment="container", data_root="/elsewhere")

    assert settings.uploads_dir == Path("/elsewhere/uploads")


def test_there_is_no_default_service_token() -> None:
    with pytest.raises(ValidationError, match="service_token"):
        CommonSettings()


def test_retry_delays_are_read_from_a_comma_separated_variable() -> None:
    settings = CommonSettings(service_token=TOKEN, retry_delays="1,2.5")

    assert settings.retry_delays == (timedelta(seconds=1), timedelta(seconds=2.5))


def test_a_heartbeat_that_cannot_keep_a_lease_is_refused() -> None:
    with pytest.raises(ValidationError, match="heartbeat"):
        CommonSettings(service_token=TOKEN, heartbeat=30, lease_ttl=45)


def test_durations_in_the_environment_are_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEASE_TTL", "50")
    monkeypatch.setenv("ACK_WAIT", "PT2M")

    settings = CommonSettings(service_token=TOKEN)

    assert settings.lease_ttl == timedelta(seconds=50)
    assert settings.ack_wait == timedelta(minutes=2)


def test_what_is_missing_or_cannot_be_is_told_in_one_line_without_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SERVICE_TOKEN", "hunter2")
    monkeypatch.setenv("HEARTBEAT", "soon")
    monkeypatch.setenv("NATS_REPLICAS", "9")

    with pytest.raises(SystemExit) as ended:
        CommonSettings.from_environment()

    said = capsys.readouterr().err
    assert ended.value.code == 78
    assert said.startswith("cannot start: SERVICE_TOKEN: Value should have at least 16 items")
    assert "NATS_REPLICAS: Input should be less than or equal to 5" in said
    assert "HEARTBEAT: " in said
    assert said.count("\n") == 1
    assert "hunter2" not in said


@pytest.mark.parametrize("url", ["s3+https://store.example.com", "ftp://store.example.com"])
def test_a_service_that_opens_the_object_store_does_not_start_without_what_it_needs(url: str) -> None:
    with pytest.raises(ValidationError, match="STORAGE_URL"):
        IngestSettings(service_token=TOKEN, storage_url=url)
    CommonSettings(service_token=TOKEN, storage_url=url)  # the others open none


@pytest.mark.parametrize("module", [*PORTS, "gateway.migrate", "gateway.jobs.rebuild"])
def test_a_service_without_its_token_says_so_and_ends(module: str, tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PROJECT)}

    ended = subprocess.run(
        [sys.executable, "-m", f"services.{module}"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == 78, ended.stderr
    assert ended.stderr.startswith("cannot start: SERVICE_TOKEN is not set (Shared secret of the inner services")
    assert ended.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
