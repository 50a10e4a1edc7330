"""Containers of a stack under a project name of its own, for tests that have a Docker engine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from scripts.processes import free_port
from scripts.secret_file import ensure_secrets
from tests.deploy.files import PROJECT, SERVICES


def has_engine() -> bool:
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def wait_for(what: Callable[[], bool], seconds: float, say: str) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, say
        time.sleep(1)


@dataclass
class Containers:
    """One stack: `options` are those of scripts/compose, `project` the folder whose files it uses."""

    name: str
    env_file: Path
    port: int
    options: Sequence[str] = ()
    project: Path = PROJECT

    def compose(self, *command: str, seconds: float = 600) -> str:
        """One `scripts/compose` command; its output."""
        done = subprocess.run(
            [self.project / "scripts" / "compose", *self.options, "--env-file", str(self.env_file), *command],
            env=os.environ | {"COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def inside(self, service: str, script: str) -> str:
        """What a shell script says in a running container, its errors as well."""
        return self.compose("exec", "-T", service, "sh", "-c", f"{{ {script}; }} 2>&1 || true").strip()

    def health(self, service: str) -> str:
        [container] = self.compose("ps", "-q", service).split()
        found = subprocess.run(["docker", "inspect", container], capture_output=True, text=True, check=True)
        return str(json.loads(found.stdout)[0]["State"]["Health"]["Status"])

    def wait_healthy(self, services: Sequence[str] = (*SERVICES, "nats"), seconds: float = 300) -> None:
        wait_for(
            lambda: all(self.health(service) == "healthy" for service in services), seconds, f"{services} not healthy"
        )

    def left(self) -> dict[str, str]:
        """Containers, volumes and networks of this stack that still exist."""
        label = f"label=com.docker.compose.project={self.name}"
        found = {}
        for kind in ("container", "volume", "network"):
            command = ["docker", kind, "ls", "-q", "--filter", label]
            found[kind] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {kind: listed for kind, listed in found.items() if listed}


@contextmanager
def running(
    folder: Path, name: str, *services: str, options: Sequence[str] = (), project: Path = PROJECT
) -> Iterator[Containers]:
    """Builds the images and starts `services` (all without names); leaves nothing.

    Skips, with the reason, where no engine answers.
    """
    if not has_engine():
        pytest.skip("no Docker engine answers here")
    (folder / "assets").mkdir()
    env_file, port = folder / "env", free_port()
    # Where torch comes from and the bases may be named outside, as for the scripts.
    given = {n: os.environ[n] for n in ("TORCH_INDEX_URL", "PYTHON_IMAGE", "NATS_IMAGE") if n in os.environ}
    values = given | {"GATEWAY_PORT": str(port), "ASSETS_FOLDER": str(folder / "assets"), "VOICEWRIGHT_VERSION": "test"}
    env_file.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
    ensure_secrets(env_file)
    stack = Containers(f"{name}-{os.getpid()}", env_file, port, options, project)
    try:
        stack.compose("build", *(services or ("gateway", "trainer")), seconds=3000)
        stack.compose("up", "--detach", *services)
        stack.wait_healthy(services or (*SERVICES, "nats"))
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "60")
    assert stack.left() == {}
