"""How does the database get its schema? `python -m services.gateway.migrate [up|down REVISION]`, before a start."""

from __future__ import annotations

import asyncio
import sys

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from services.gateway.database import Base, create_engine
from services.gateway.schema import MIGRATIONS, head_revision
from services.gateway.settings import GatewaySettings

# PostgreSQL: only one of several starting replicas migrates, the others wait for it. Any number of our own will do.
_ADVISORY_LOCK = 5_821_077


def config(connection: Connection | None = None) -> Config:
    """Alembic's configuration, made here: its settings are ours, so there is no ini file."""
    made = Config()
    made.set_main_option("script_location", str(MIGRATIONS))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made


async def migrate(settings: GatewaySettings, direction: str = "up", revision: str = "head") -> None:
    """Brings the database of `DATABASE_URL` up to `revision`, or down to it (`base` for nothing at all)."""
    engine = create_engine(settings)
    move = command.upgrade if direction == "up" else command.downgrade
    try:
        async with engine.connect() as connection:
            if engine.dialect.name == "sqlite":
                # Rebuilding a table drops it for a moment, which must not cascade to the rows that refer to it.
                await connection.exec_driver_sql("ROLLBACK")
                await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                await connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
            await connection.run_sync(lambda sync: move(config(sync), revision))
            await connection.commit()
    finally:
        await engine.dispose()


def all_tables() -> type[Base]:
    """`Base` with every domain's tables known to it."""
    from services.gateway import idempotency
    from services.gateway.accounts import keys
    from services.gateway.accounts import tables as accounts
    from services.gateway.audit import tables as audit
    from services.gateway.datasets import tables as datasets
    from services.gateway.jobs import tables as jobs
    from services.gateway.jobs import turns
    from services.gateway.live import tickets as live
    from services.gateway.voices import tables as voices

    assert all((accounts, audit, datasets, idempotency, jobs, keys, live, turns, voices))
    return Base


def main() -> None:
    """The command line."""
    arguments = sys.argv[1:] or ["up"]
    direction = arguments[0]
    if direction not in ("up", "down") or (direction == "down" and len(arguments) != 2) or len(arguments) > 2:
        sys.exit("use: python -m services.gateway.migrate [up [REVISION] | down REVISION]")
    revision = arguments[1] if len(arguments) == 2 else "head"
    settings = GatewaySettings.from_environment()
    asyncio.run(migrate(settings, direction, revision))
    where = settings.sqlite_file or "the PostgreSQL server"
    print(f"database of the gateway in {where}: schema {revision if direction == 'down' else head_revision()}")


if __name__ == "__main__":
    main()
