"""How do tables become lines and lines tables? By what the database itself says of its columns.

Not by the code's own tables: a backup of an older schema is loaded as it was, and migrated afterwards. The lines are
the same for SQLite and PostgreSQL, so what was kept of one can be restored into the other.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Column, Connection, DateTime, Integer, LargeBinary, MetaData, Table, func, select, text
from sqlalchemy.sql.type_api import TypeEngine

from services.gateway.backup.archive import DATABASE, ArchiveRefused
from services.gateway.database import new_ulid
from services.gateway.migrate import all_tables

ROWS = 1000
VERSION = "alembic_version"


def reflected(connection: Connection) -> MetaData:
    """The platform's own tables as the database has them; those of others beside them are nobody's business."""
    ours = {*all_tables().metadata.tables, VERSION}
    metadata = MetaData()
    metadata.reflect(connection, only=lambda name, _: name in ours)
    return metadata


def tables_of(connection: Connection) -> list[Table]:
    """The tables that the database has, parents before children, without the migrations' own."""
    metadata = reflected(connection)
    for table in metadata.tables.values():
        for column in table.columns:
            if isinstance(column.type, JSON):
                column.type.none_as_null = True  # nothing is NULL, and not the word null
    return [table for table in metadata.sorted_tables if table.name != VERSION]


def revision_of(connection: Connection) -> str | None:
    """The schema that the database has; None for an empty one."""
    metadata = reflected(connection)
    if VERSION not in metadata.tables:
        return None
    return connection.execute(select(metadata.tables[VERSION].c.version_num)).scalar_one_or_none()


def dump(connection: Connection, write: Callable[[str, bytes], None]) -> dict[str, int]:
    """Every row of every table, as the one transaction of `connection` sees it; returns the rows of each table."""
    counts = {}
    for table in tables_of(connection):
        rows = connection.execution_options(yield_per=ROWS).execute(select(table).order_by(*table.primary_key))
        counts[table.name] = 0
        for number, part in enumerate(rows.mappings().partitions(ROWS), 1):
            lines = [json.dumps({name: _plain(value) for name, value in row.items()}) for row in part]
            write(f"{DATABASE}/{table.name}/{number:06}.jsonl", "\n".join(lines).encode())
            counts[table.name] += len(lines)
    return counts


def load(connection: Connection, folder: Path) -> dict[str, int]:
    """The rows that lie below `folder` into empty tables of the same schema; returns the rows of each table."""
    tables = {table.name: table for table in tables_of(connection)}
    strange = {path.name for path in folder.glob("*")} - tables.keys()
    if strange:
        raise ArchiveRefused(f"the backup has a table {min(strange)!r}, which its own schema has not")
    counts = dict.fromkeys(tables, 0)
    for name, table in tables.items():
        for part in sorted((folder / name).glob("*.jsonl")):
            rows = [_typed(table, json.loads(line)) for line in part.read_bytes().split(b"\n")]
            connection.execute(table.insert(), rows)
            counts[name] += len(rows)
        _count_on(connection, table)
    _as_another_store(connection, tables)
    return counts


def _as_another_store(connection: Connection, tables: dict[str, Table]) -> None:
    """Whatever store the broker has, it is not the one that knows these jobs: it is told of all that go on."""
    if "broker_store" in tables:
        connection.execute(tables["broker_store"].update().values(identity=f"restored-{new_ulid()}"))


def _count_on(connection: Connection, table: Table) -> None:
    """PostgreSQL's counters begin behind the rows that were given their numbers; SQLite looks for itself."""
    [key, *more] = table.primary_key.columns
    if connection.dialect.name != "postgresql" or more or not isinstance(key.type, Integer):
        return
    sequence = connection.execute(select(func.pg_get_serial_sequence(table.name, key.name))).scalar_one()
    highest = connection.execute(select(func.max(key))).scalar_one()
    if sequence is not None and highest is not None:
        connection.execute(text("SELECT setval(:sequence, :value)"), {"sequence": sequence, "value": highest})


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _typed(table: Table, row: dict[str, Any]) -> dict[str, Any]:
    if row.keys() - table.columns.keys():
        raise ArchiveRefused(f"a row of {table.name!r} has columns that its schema has not")
    is_sqlite_like = {column.name: _keeps_no_zone(column) for column in table.columns}
    return {name: _value(table.columns[name].type, value, is_sqlite_like[name]) for name, value in row.items()}


def _keeps_no_zone(column: Column[Any]) -> bool:
    return isinstance(column.type, DateTime) and not column.type.timezone


def _value(kind: TypeEngine[Any], value: Any, without_zone: bool) -> Any:
    if value is None:
        return None
    if isinstance(kind, DateTime):
        moment = datetime.fromisoformat(value)
        return moment.replace(tzinfo=None) if without_zone else moment
    return base64.b64decode(value) if isinstance(kind, LargeBinary) else value
