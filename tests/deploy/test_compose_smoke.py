"""Can `scripts/compose-smoke` be tried here, and do its files fit over those of deploy/compose? Needs no engine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from scripts import compose_smoke
from scripts.customer_commands import COMMANDS
from scripts.deploy_checks import compose_config
from scripts.deploy_checks.compose_files import laid_over, load
from scripts.secret_file import ensure_secrets
from tests.deploy.files import FOLDER, PROJECT, SERVICES, stack

SMOKE = compose_smoke.SMOKE


def test_without_an_engine_it_says_so_and_tries_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert compose_smoke.main(["--log", str(tmp_path / "log")]) == 2

    assert "docker" in capsys.readouterr().err
    assert not (tmp_path / "log").exists()


def test_its_stand_ins_change_images_and_nothing_that_is_to_be_tried():
    over = load(SMOKE / "compose.debian.yaml")
    before, after = stack("prod")["services"], laid_over(stack("prod"), over)["services"]

    # PostgreSQL and NATS are taken under their public names.
    assert set(over["services"]) == set(compose_smoke.BESIDE) - {"postgres"}
    for name in before:
        changed = {key for key in after[name] if after[name][key] != before[name].get(key)}
        # moto is another program, which answers at other addresses.
        assert changed <= {"image", "build"} | ({"entrypoint", "healthcheck"} if name == "s3" else set()), name


def test_the_traces_are_taken_by_a_server_beside_the_others_that_changes_none_of_them():
    over = load(SMOKE / "compose.traces.yaml")
    before, after = stack("prod")["services"], laid_over(stack("prod"), over)["services"]

    assert {name for name in after if after[name] != before.get(name)} == {"collector"}
    for service in SERVICES:
        assert after[service]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"] == "${OTEL_EXPORTER_OTLP_ENDPOINT:-}"


def test_every_stage_that_it_asks_for_is_in_its_dockerfile():
    text = (SMOKE / "Dockerfile").read_text(encoding="utf-8")

    for service in yaml.safe_load((SMOKE / "compose.debian.yaml").read_text(encoding="utf-8"))["services"].values():
        assert f" AS {service['build']['target']}\n" in text


def test_compose_takes_its_files_over_the_others(tmp_path: Path) -> None:
    if not compose_config.commands():
        pytest.skip(compose_config.MISSING)
    ensure_secrets(tmp_path / "env", full=True)
    files = [FOLDER / "compose.yaml", FOLDER / "compose.full.yaml", *sorted(SMOKE.glob("compose.*.yaml"))]

    done = subprocess.run(
        [
            *compose_config.commands()[0],
            *("--env-file", str(tmp_path / "env")),
            *(argument for file in files for argument in ("-f", str(file))),
            *("config", "-q"),
        ],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert done.returncode == 0, done.stderr


def test_the_kept_run_worked_in_every_stack_and_names_no_place_of_its_machine():
    log = (PROJECT / "docs" / "proofs" / "compose-smoke.log").read_text(encoding="utf-8")
    plain, others = log.split("-- the development stack", 1)
    dev, full = others.split("-- the stack of --prod", 1)

    for part in (plain, dev, full):
        assert "everything worked" in part
        assert "taken down: no container, network or volume is left" in part
        assert re.search(r"\d+ containers are up, services and broker are healthy\n", part)
        assert re.search(r"voice trained: \d+ steps, attempt 1\n +\d+ s  [\d.]+ s of speech converted", part)
    for part in (plain, full):
        assert "two trainers, two voices: Anna, Ben, Cleo" in part
    assert f"{', '.join(compose_smoke.BESIDE)} are healthy too\n" in full
    assert "TLS: the certificate is right, the API answers, /metrics is not passed on\n" in full
    assert re.search(r"traces: a training is one, \d+ spans of gateway, ingest, preprocessor, trainer\n", full)
    assert set(re.findall(r"(\w+) restarted while the job was running", plain)) == {*SERVICES, "nats"}
    for name in COMMANDS:
        assert re.search(rf"curl, {name}: 20[0-2]\n", plain)
    assert "FAILED" not in log
    assert not re.search(r"(^|\s)/[a-z]+/|https?://|:\d{4,5}\b", log)
