"""Do migrations go up and down on both databases, and make exactly the tables that the code has?"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from libs.common.errors import Unavailable
from services.gateway.checks import DatabaseCheck
from services.gateway.database import Database, create_engine
from services.gateway.migrate import all_tables, config, migrate
from services.gateway.schema import head_revision
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import empty_postgres, gateway_settings


@pytest.fixture(params=["sqlite", "postgresql"])
async def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A database with nothing in it."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/empty.db"
        return
    async with empty_postgres(request.getfixturevalue("postgres")) as url:
        yield url


async def _inside(url: str, tmp_path: Path, look: Any) -> Any:
    engine = create_engine(gateway_settings(tmp_path, database_url=url))
    async with engine.connect() as connection:
        found = await connection.run_sync(look)
    await engine.dispose()
    return found


def _differences(connection: Any) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True})
    return list(compare_metadata(context, all_tables().metadata))


def _tables(connection: Any) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_migrations_make_exactly_the_tables_of_the_code_and_take_them_away(
    empty_url: str, tmp_path: Path
) -> None:
    settings = gateway_settings(tmp_path, database_url=empty_url)

    await migrate(settings)
    differences = await _inside(empty_url, tmp_path, _differences)
    await migrate(settings, "down", "base")
    left = await _inside(empty_url, tmp_path, _tables)
    await migrate(settings)
    again = await _inside(empty_url, tmp_path, _differences)

    assert differences == []
    assert left <= {"alembic_version"}
    assert again == []


def test_the_newest_file_is_alembics_head() -> None:
    assert ScriptDirectory.from_config(config()).get_heads() == [head_revision()]


async def test_migrating_twice_changes_nothing(empty_url: str, tmp_path: Path) -> None:
    settings = gateway_settings(tmp_path, database_url=empty_url)
    await migrate(settings)

    await migrate(settings)

    assert "users" in await _inside(empty_url, tmp_path, _tables)


def test_the_command_migrates_the_database_of_the_environment(tmp_path: Path) -> None:
    variables = {
        "PATH": "/usr/bin:/bin",
        "SERVICE_TOKEN": TOKEN,
        "DATA_ROOT": str(tmp_path / "data"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/new/gateway.db",
    }
    command = [sys.executable, "-m", "services.gateway.migrate"]

    up = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=150)
    down = subprocess.run([*command, "down", "base"], env=variables, capture_output=True, text=True, timeout=150)
    wrong = subprocess.run([*command, "sideways"], env=variables, capture_output=True, text=True, timeout=150)

    assert up.returncode == 0, up.stderr
    assert head_revision() in up.stdout
    assert (tmp_path / "new" / "gateway.db").exists()
    assert down.returncode == 0, down.stderr
    assert wrong.returncode != 0
    assert "use:" in wrong.stderr


async def test_a_database_that_is_not_migrated_is_not_ready(tmp_path: Path) -> None:
    settings = gateway_settings(tmp_path)
    database = Database(settings)
    with pytest.raises(Unavailable):
        await DatabaseCheck(database)()
    await migrate(settings, "up", "0001")

    with pytest.raises(Unavailable, match="migrate"):
        await DatabaseCheck(database)()
    await migrate(settings)

    assert head_revision() in await DatabaseCheck(database)()
    await database.close()
