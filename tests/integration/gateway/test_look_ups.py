"""Is a row that is looked up by its key the one that was committed last, whatever else the database does?"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import bindparam, select

from services.gateway.accounts.tables import User
from services.gateway.database import Database
from services.gateway.settings import GatewaySettings

BY_ID = select(User).where(User.id == bindparam("user_id"))


@pytest.fixture
async def database(database_url: str, tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(GatewaySettings(database_url=database_url, data_root=tmp_path / "data", service_token="t" * 32))
    async with database.write() as session:
        session.add(User(id="usr_1", email="anna@example.org", name="0", role="creator", password_hash="-"))
    yield database
    await database.close()


async def rename(database: Database, name: str) -> None:
    async with database.write() as session:
        user = await session.get(User, "usr_1")
        assert user is not None
        user.name = name


async def test_every_look_up_gives_what_was_committed_last(database: Database) -> None:
    seen = []
    for number in range(1, 20):
        await rename(database, str(number))
        user = await database.look_up(BY_ID, user_id="usr_1")
        assert user is not None
        seen.append(user.name)

    assert seen == [str(number) for number in range(1, 20)]
    assert await database.look_up(BY_ID, user_id="usr_2") is None


async def test_a_change_that_is_not_committed_is_not_seen(database: Database) -> None:
    async with database.write() as session:
        user = await session.get(User, "usr_1")
        assert user is not None
        user.name = "half"
        await session.flush()
        during = await database.look_up(BY_ID, user_id="usr_1")
    after = await database.look_up(BY_ID, user_id="usr_1")

    assert during is not None
    assert during.name == "0"
    assert after is not None
    assert after.name == "half"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_look_up_holds_no_snapshot_that_would_let_the_log_grow(database: Database, tmp_path: Path) -> None:
    await database.look_up(BY_ID, user_id="usr_1")
    await rename(database, "new")

    with sqlite3.connect(tmp_path / "gateway.db") as other:
        busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()

    assert busy == 0
    assert (tmp_path / "gateway.db-wal").stat().st_size == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_locked_file_is_waited_for_and_the_loop_goes_on(database: Database, tmp_path: Path) -> None:
    await database.close()  # the last connection is gone: the file can be taken by one process alone
    owner = sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)
    owner.execute("PRAGMA locking_mode=EXCLUSIVE")
    owner.execute("BEGIN EXCLUSIVE")

    looking = asyncio.create_task(database.look_up(BY_ID, user_id="usr_1"))
    turns = 0
    for _ in range(20):
        await asyncio.sleep(0.01)
        turns += 1
    was_waiting = not looking.done()
    owner.execute("COMMIT")
    owner.close()
    user = await asyncio.wait_for(looking, 60)

    assert was_waiting
    assert turns == 20
    assert user is not None
    assert user.name == "0"
