"""Are the images made as they should be, and do their two little programs tell the truth? Needs no engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata

import pytest

from libs.common.settings import PORTS
from scripts.processes import free_port
from tests.deploy.files import PROJECT

DOCKERFILE = (PROJECT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
HEALTHCHECK = PROJECT / "deploy" / "image" / "healthcheck.py"
SBOM = PROJECT / "deploy" / "image" / "sbom.py"


def stages() -> dict[str, list[str]]:
    """The instructions of each stage, continued lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, list[str]] = {"": []}
    name = ""
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if stage := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = stage[2]
            found[name] = []
        if line.strip():
            found[name].append(line)
    return found


@contextmanager
def answering(status: int, body: bytes) -> Iterator[int]:
    """A server whose `/readyz` always answers the same; yields its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/readyz" else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def checked(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(HEALTHCHECK)],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_it_builds_with_every_builder():
    assert "syntax=" not in DOCKERFILE
    assert not re.search(r"--(mount|link|chmod|checksum|security|network)\b|<<", DOCKERFILE)


def test_every_stage_stands_on_the_pinned_base_or_another_stage():
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.M)

    assert set(bases) == {"${PYTHON_IMAGE}", "base", "build-voice", "voice"}
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.11-slim-bookworm$", DOCKERFILE, re.M)


@pytest.mark.parametrize("target", ["light", "voice"])
def test_an_image_runs_as_a_number_that_is_not_root_and_says_what_it_is(target):
    instructions = stages()[target]
    [user] = [line for line in instructions if line.startswith("USER ")]
    labels = {name for line in instructions for name in re.findall(r"org\.opencontainers\.image\.(\w+)=", line)}

    assert user == "USER 10001:10001"
    assert {"title", "version", "revision", "licenses"} <= labels
    assert not any("apt-get" in line or "pip install" in line for line in instructions + stages()["base"])
    assert any(line.startswith("HEALTHCHECK ") for line in stages()["base"])


def test_xtts_is_a_layer_over_the_voice_image_which_never_hears_of_it():
    text = (PROJECT / "scripts" / "install-xtts").read_text(encoding="utf-8")
    made, added = "\n".join(stages()["build-xtts"]), "\n".join(stages()["voice-xtts"])

    for packages in ("coqui-tts coqui-tts-trainer six faster-whisper", "torchaudio torchcodec"):
        assert packages in text
        assert packages in made
    assert re.findall(r"^USER (.*)$", added, re.M)[-1] == "10001:10001"
    assert "COPY --from=build-xtts /opt/xtts /opt/xtts" in added
    assert "xtts" not in "\n".join(line for name in ("base", "code", "build-voice", "voice") for line in stages()[name])
    assert list(stages())[-2:] == ["build-xtts", "voice-xtts"]  # a builder that makes every stage above its target


def test_the_light_image_is_made_of_stages_that_never_hear_of_torch():
    ancestors = ("base", "code", "build-light", "light")

    assert "torch" not in "\n".join(line for name in ancestors for line in stages()[name])
    assert list(stages()).index("light") < list(stages()).index("build-voice")


@pytest.mark.parametrize("stage", ["build-light", "build-voice"])
def test_dependencies_are_installed_before_any_code_is_seen(stage):
    copied = [line for line in stages()[stage] if line.startswith("COPY ")]

    assert copied
    assert set(" ".join(copied).replace("COPY", "").replace("./", "").split()) == {"pyproject.toml", "constraints.txt"}


@pytest.mark.parametrize("stage", ["build-light", "build-voice"])
def test_the_packages_of_traces_are_in_both_images(stage):
    [installed] = re.findall(r'"\.\[([a-z,]+)\]"', "\n".join(stages()[stage]))

    assert "otel" in installed.split(",")


def test_what_is_copied_reaches_the_builder():
    admitted = {
        line.removeprefix("!")
        for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.M):
        for source in line.split()[:-1]:
            assert (PROJECT / source).exists(), source
            assert any(source == path or source.startswith(f"{path}/") for path in admitted), source


def test_a_ready_service_is_healthy():
    with answering(200, b'{"status": "ready", "checks": []}') as port:
        answer = checked(SERVICE="gateway", PORT=str(port))

    assert (answer.returncode, answer.stdout) == (0, "ready\n")


def test_a_service_that_is_not_ready_is_unhealthy_and_names_what_is_missing():
    body = {"checks": [{"name": "broker", "ok": False, "detail": "not connected"}, {"name": "storage", "ok": True}]}
    with answering(503, json.dumps(body).encode()) as port:
        answer = checked(SERVICE="gateway", PORT=str(port))

    assert (answer.returncode, answer.stdout) == (1, "broker: not connected\n")


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
def test_an_answer_of_something_else_is_unhealthy(body):
    with answering(502, body) as port:
        answer = checked(SERVICE="gateway", PORT=str(port))

    assert answer.returncode == 1
    assert answer.stderr == ""


def test_no_answer_is_unhealthy():
    answer = checked(SERVICE="trainer", PORT=str(free_port()))

    assert answer.returncode == 1
    assert "no answer on port" in answer.stdout


def test_the_health_check_knows_the_port_of_each_service():
    namespace: dict[str, object] = {"__name__": "healthcheck"}
    exec(HEALTHCHECK.read_text(encoding="utf-8"), namespace)

    assert namespace["PORTS"] == PORTS


def test_the_list_of_contents_names_every_package_with_its_version():
    printed = subprocess.run([sys.executable, str(SBOM)], capture_output=True, text=True, check=True, timeout=60).stdout
    bill = json.loads(printed)
    python = {c["name"]: c["version"] for c in bill["components"] if c["purl"].startswith("pkg:pypi/")}

    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    assert python["pydantic"] == metadata.version("pydantic")
    assert python["fastapi"] == metadata.version("fastapi")
    assert len({c["purl"] for c in bill["components"]}) == len(bill["components"])
