"""The main job on PostgreSQL, as at scale: the same five services, another database."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from scripts.stack import Stack
from tests.factories_audio import make_speech
from tests.flows.conftest import QUICK, Platform, signed_in
from tests.postgres import running_postgres

pytestmark = pytest.mark.slow

DATABASE = "voicewright_flow"


async def _fresh_database(url: str) -> None:
    connection = await asyncpg.connect(f"{url.replace('+asyncpg', '')}/postgres")
    await connection.execute(f'DROP DATABASE IF EXISTS "{DATABASE}"')
    await connection.execute(f'CREATE DATABASE "{DATABASE}"')
    await connection.close()


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A stack whose gateway keeps its rows in a PostgreSQL of its own."""
    with running_postgres() as url:
        asyncio.run(_fresh_database(url))
        environment = QUICK | {"DATABASE_URL": f"{url}/{DATABASE}"}
        stack = Stack(tmp_path_factory.mktemp("platform"), environment=environment)
        with stack:
            client = signed_in(stack)
            yield Platform(stack, client)
            client.close()


def test_recordings_become_a_voice_on_postgresql(platform: Platform, recordings: list[Path], tmp_path: Path) -> None:
    dataset = platform.client.ensure_dataset("Anna")
    assert platform.client.upload(recordings, dataset.id).rejected == []
    job = platform.client.add_training_job(dataset.id, name="Anna", preset="rvc-tiny", total_steps=20)
    platform.in_phase(job.id, "train")

    platform.stack.kill("gateway")
    platform.stack.restart("gateway")

    over = platform.finished(job.id)
    assert over.status == "completed", over.error
    source = make_speech(2.0, "en-us+m3", tmp_path / "source.wav", seed=4)
    conversion = platform.client.convert(source, "Anna", tmp_path / "converted.flac")
    assert conversion.voice_version == job.id
    assert (tmp_path / "converted.flac").read_bytes()[:4] == b"fLaC"
