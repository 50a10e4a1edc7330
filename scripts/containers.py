"""How does a program start a stack of containers under a name of its own, look into it, and leave nothing?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.stack import PROJECT, SERVICES


class ContainersError(Exception):
    """The engine or a container does not do what it was asked for; the text says what was seen."""


def has_engine() -> bool:
    """Whether a Docker engine answers here."""
    if shutil.which("docker") is None:
        return False
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


def wait_for(what: Callable[[], bool], seconds: float, say: str) -> None:
    """Returns once `what` is true; raises ContainersError with `say` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            raise ContainersError(say)
        time.sleep(1)


def given_outside() -> dict[str, str]:
    """Where torch comes from and the bases, as the environment names them for the scripts."""
    return {name: os.environ[name] for name in ("TORCH_INDEX_URL", "PYTHON_IMAGE", "NATS_IMAGE") if name in os.environ}


@dataclass
class Containers:
    """One stack: `options` are those of scripts/compose, `project` the folder whose files it uses.

    `port`: where the gateway is published on this machine.
    """

    name: str
    env_file: Path
    port: int
    options: Sequence[str] = ()
    project: Path = PROJECT

    def compose(self, *command: str, seconds: float = 600) -> str:
        """One `scripts/compose` command; its output. Raises ContainersError with its last words when it fails."""
        done = subprocess.run(
            [self.project / "scripts" / "compose", *self.options, "--env-file", str(self.env_file), *command],
            env=os.environ | {"COMPOSE_PROJECT_NAME": self.name},
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        if done.returncode:
            raise ContainersError(f"compose {' '.join(command)}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
        return done.stdout

    def inside(self, service: str, script: str) -> str:
        """What a shell script says in a running container, its errors as well."""
        return self.compose("exec", "-T", service, "sh", "-c", f"{{ {script}; }} 2>&1 || true").strip()

    def containers(self, service: str) -> list[str]:
        """The containers of a service, by id."""
        return self.compose("ps", "-q", service).split()

    def health(self, service: str) -> str:
        """`healthy` when all containers of a service are; else what the first other one is."""
        found = subprocess.run(
            ["docker", "inspect", *self.containers(service)], capture_output=True, text=True, check=True
        )
        states = [str(one["State"]["Health"]["Status"]) for one in json.loads(found.stdout)]
        return next((state for state in states if state != "healthy"), "healthy" if states else "absent")

    def wait_healthy(self, services: Sequence[str] = (*SERVICES, "nats"), seconds: float = 300) -> None:
        wait_for(
            lambda: all(self.health(service) == "healthy" for service in services), seconds, f"{services} not healthy"
        )

    def published(self, service: str, port: int, number: int = 1) -> str:
        """The address on this machine of one container's port."""
        answer = self.compose("port", "--index", str(number), service, str(port)).strip()
        return f"http://{answer}"

    def left(self) -> dict[str, str]:
        """Containers, volumes and networks of this stack that still exist."""
        label = f"label=com.docker.compose.project={self.name}"
        found = {}
        for kind in ("container", "volume", "network"):
            command = ["docker", kind, "ls", "-q", "--filter", label]
            found[kind] = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        return {kind: listed for kind, listed in found.items() if listed}
