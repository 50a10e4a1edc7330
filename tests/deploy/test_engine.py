"""Does the platform really come up in containers, work there, and leave nothing? Needs a Docker engine.

The images are built first. With nothing in the builder's cache that downloads PyTorch and takes many minutes, so this
module has a limit of its own; with the cache it took twelve on two busy cores, half of them for the journey, which
trains a voice and restarts every container. The images, tagged `test`, stay as the builder's cache.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import soundfile

from libs.client.api import Client
from scripts.containers import Containers, wait_for
from scripts.secret_file import read_secrets
from tests.deploy.engine import running
from tests.deploy.files import PROJECT, SERVICES
from tests.factories_audio import make_recordings, make_speech

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containers]:
    """The plain stack."""
    with running(tmp_path_factory.mktemp("containers"), "voicewright-test") as stack:
        yield stack


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_is_nobody_special_and_can_write_only_where_it_must(containers, service):
    assert containers.inside(service, "id -u") == "10001"
    assert "Read-only file system" in containers.inside(service, "touch /here")
    assert "Read-only file system" in containers.inside(service, "touch /app/here")
    assert "Read-only file system" in containers.inside(service, "touch /assets/here")
    assert containers.inside(service, "touch /tmp/here /data/.here && rm /data/.here && echo written") == "written"
    assert containers.inside(service, "grep CapEff /proc/1/status").split()[-1] == "0" * 16


@pytest.mark.parametrize("service", SERVICES)
def test_no_tool_that_builds_is_in_what_we_add(containers, service):
    tools = "for tool in gcc cc g++ make; do command -v $tool; done; ls /opt/venv/bin | grep -i ^pip"

    assert containers.inside(service, tools) == ""


def test_torch_is_in_the_voice_image_alone(containers):
    looked = "python -c 'import importlib.util as i; print(i.find_spec(\"torch\") is not None)'"

    assert {s: containers.inside(s, looked) for s in SERVICES} == {
        "gateway": "False",
        "ingest": "False",
        "preprocessor": "True",
        "trainer": "True",
        "inference": "True",
    }


@pytest.mark.parametrize("service", SERVICES)
def test_traces_can_be_sent_by_every_service_without_another_image(containers, service):
    asked = "from libs.common import tracing; print(tracing.configure('x', 'http://collector:4318'))"

    assert containers.inside(service, f'python -c "{asked}"').splitlines()[-1] == "True"


def test_an_image_lists_its_contents_and_says_its_version(containers):
    bill = json.loads(containers.inside("inference", "cat /usr/share/doc/voicewright/sbom.cdx.json"))
    versions = {component["name"]: component["version"] for component in bill["components"]}
    shown = subprocess.run(
        ["docker", "inspect", "voicewright-voice:test"], capture_output=True, text=True, check=True
    ).stdout

    assert containers.inside("inference", "python -c 'import numpy; print(numpy.__version__)'") == versions["numpy"]
    assert json.loads(shown)[0]["Config"]["Labels"]["org.opencontainers.image.version"] == "test"


def test_recordings_become_a_voice_that_converts_and_lasts_through_a_restart_of_each_container(containers, tmp_path):
    secrets = read_secrets(containers.env_file)
    url = f"http://127.0.0.1:{containers.port}"
    with Client(url) as client:
        client.login(secrets["ADMIN_EMAIL"], secrets["ADMIN_PASSWORD"])
        dataset = client.ensure_dataset("Anna")
        assert not client.upload(make_recordings(tmp_path, count=4, seconds=6.0), dataset.id).rejected
        job = client.wait(client.add_training_job(dataset.id, name="Anna", preset="lite", total_steps=20))
        assert job.status == "completed", job.error

    containers.compose("restart")
    containers.wait_healthy()

    source = make_speech(3.0, "en-us+m3", tmp_path / "source.wav", seed=4)
    with Client(url) as client:
        client.login(secrets["ADMIN_EMAIL"], secrets["ADMIN_PASSWORD"])
        assert [voice.name for voice in client.voices()] == ["Anna"]
        made = client.convert(source, "Anna", tmp_path / "converted.wav")
    wave, rate = soundfile.read(tmp_path / "converted.wav")
    assert made.voice_version == job.id
    assert abs(len(wave) / rate - 3.0) < 0.2
    assert (wave**2).mean() ** 0.5 > 0.003


def test_a_service_without_its_broker_is_unhealthy_and_says_why(containers):
    containers.compose("stop", "nats")
    try:
        wait_for(lambda: containers.health("gateway") == "unhealthy", 180, "the gateway is still healthy")
        said = containers.inside("gateway", "python /app/healthcheck.py")
        assert said.startswith("broker: ")
        assert httpx.get(f"http://127.0.0.1:{containers.port}/livez", timeout=30, trust_env=False).status_code == 200
    finally:
        containers.compose("start", "nats")
    wait_for(lambda: containers.health("gateway") == "healthy", 180, "the gateway is not healthy again")


def test_a_change_of_the_source_restarts_the_service_of_the_development_stack(tmp_path: Path) -> None:
    project = tmp_path / "project"
    for name in ("libs", "services", "deploy", "scripts"):
        shutil.copytree(PROJECT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("LICENSE", "pyproject.toml", "constraints.txt"):
        shutil.copy(PROJECT / name, project / name)
    (tmp_path / "run").mkdir()

    with running(tmp_path / "run", "voicewright-dev", "ingest", options=("--dev",), project=project) as stack:
        source = project / "services" / "ingest" / "app.py"
        source.write_text(source.read_text() + "\nprint('changed source is read', flush=True)\n")

        wait_for(lambda: "changed source is read" in stack.compose("logs", "ingest"), 120, "the change was not read")
        stack.wait_healthy(["ingest"])
        assert "reload: the source has changed" in stack.compose("logs", "ingest")
