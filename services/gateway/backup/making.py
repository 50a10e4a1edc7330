"""How is a backup made while the platform works? The database as of one moment first, then the files.

Files that rows name are there before the rows and never change, so they are all found afterwards; what came in between
is more than the rows know of, and harms nobody. Only a deletion in between is missed: the row says that the thing is
there, and its files are gone, as after a lost disk. Jobs in hand are kept as they stand and go on after a restore.
"""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from sqlalchemy import Connection

from libs.common.errors import Unavailable
from services.gateway.backup import tables
from services.gateway.backup.archive import FILES, Writer
from services.gateway.backup.roots import is_transient, roots_of
from services.gateway.database import create_engine
from services.gateway.settings import GatewaySettings


async def make(settings: GatewaySettings, stream: IO[bytes]) -> dict[str, Any]:
    """Writes a backup to `stream`; returns what it holds. Raises Unavailable for a database without a schema."""
    engine = create_engine(settings)
    if engine.dialect.name == "postgresql":
        engine = engine.execution_options(isolation_level="REPEATABLE READ")  # one moment for all tables

    def write(connection: Connection) -> tuple[Writer, dict[str, int]]:
        revision = tables.revision_of(connection)
        if revision is None:
            raise Unavailable("the database has no schema yet: there is nothing to keep")
        writer = Writer(stream, _about(settings, revision))
        return writer, tables.dump(connection, writer.add)

    try:
        async with engine.connect() as connection:
            writer, rows = await connection.run_sync(write)
    finally:
        await engine.dispose()
    roots = roots_of(settings)

    def skip(path: Path) -> bool:
        return is_transient(path) or path in roots.values() or _is_stream(path, stream)

    for name, folder in roots.items():
        writer.add_folder(f"{FILES}/{name}", folder, skip)
    return {"rows": rows, "entries": writer.finish(), "changed": writer.changed}


def _about(settings: GatewaySettings, revision: str) -> dict[str, Any]:
    return {
        "made_at": datetime.now(UTC).isoformat(),
        "version": metadata.version("voicewright") if _is_installed() else "0",
        "schema": revision,
        "roots": sorted(roots_of(settings)),
    }


def _is_installed() -> bool:
    try:
        metadata.version("voicewright")
    except metadata.PackageNotFoundError:
        return False
    return True


def _is_stream(path: Path, stream: IO[bytes]) -> bool:
    """Whether it is the very file that the backup is written to, when somebody keeps it beside what it holds."""
    name = getattr(stream, "name", None)
    return isinstance(name, str) and path.name == Path(name).name and path.absolute() == Path(name).absolute()
