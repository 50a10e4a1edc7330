"""Containers of a stack under a project name of its own, for tests that have a Docker engine."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.containers import Containers, given_outside, has_engine
from scripts.processes import free_port
from scripts.secret_file import ensure_secrets
from tests.deploy.files import PROJECT, SERVICES


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
    values = given_outside() | {
        "GATEWAY_PORT": str(port),
        "ASSETS_FOLDER": str(folder / "assets"),
        "VOICEWRIGHT_VERSION": "test",
    }
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
