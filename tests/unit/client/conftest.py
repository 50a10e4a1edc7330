"""Parts of the client's tests: a stand-in gateway, and the command line with a home of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from libs.client.cli import app
from tests.unit.client.stand_in_gateway import Gateway


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    server = Gateway()
    yield server
    server.close()


@pytest.fixture
def voicewright(gateway: Gateway, tmp_path: Path) -> Callable[..., Result]:
    """Runs the command line against the gateway, with its own configuration folder."""

    def run(*arguments: str, token: str | None = "good", url: str | None = None, input: str | None = None) -> Result:
        environment = {
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "VOICEWRIGHT_URL": url or gateway.url,
            "VOICEWRIGHT_TOKEN": token,
            "COLUMNS": "200",
            "PATH": os.environ["PATH"],
        }
        return CliRunner().invoke(app, list(arguments), env=environment, input=input)

    return run
