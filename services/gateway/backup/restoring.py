"""How does a backup become a platform again? All of it is read and checked first, beside what is there; then it moves.

    read and check ─▶ <root>/.restoring ─▶ rename into place ─▶ rows, in one transaction ─▶ migrate to this version

Until the last entry has been compared nothing of the platform is touched. A restore that is killed in the middle is
begun again with `replace`; the rows come last, so a platform that knows its voices has their files.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import IO, Any

import httpx
from sqlalchemy import Connection, select

from libs.common.errors import Conflict
from services.gateway.backup import archive, tables
from services.gateway.backup.archive import DATABASE, FILES, STAGING, ArchiveRefused, Contents
from services.gateway.backup.roots import NAMES, holdings, roots_of, staged, tops_of
from services.gateway.database import create_engine
from services.gateway.migrate import migrate
from services.gateway.schema import MIGRATIONS, head_revision
from services.gateway.settings import GatewaySettings

REPLACED = ".replaced"


class NotEmpty(Conflict):
    """There is a platform already"""

    code = "not_empty"
    suggested_actions = ("Restore into empty folders and an empty database, or say --replace to lose what is there.",)


async def restore(settings: GatewaySettings, stream: IO[bytes], *, replace: bool = False) -> dict[str, Any]:
    """Reads a backup into the folders and the database of `settings`; returns what it held.

    Raises ArchiveRefused for a broken or foreign backup, NotEmpty when something is there and `replace` is not said,
    Conflict while the gateway runs. Nothing is changed then.
    """
    await _refuse_while_it_runs(settings)
    roots = roots_of(settings)
    tops = tops_of(roots.values())
    if not replace:
        await _refuse_what_is_there(settings, roots)
    lines = tops[0] / STAGING / DATABASE
    try:
        contents = _stage(stream, roots, tops, lines)
        for top in tops:
            _set_aside(top)
            _move_in(top)
        rows = await _fill(settings, contents.about["schema"], lines)
        for top in tops:
            shutil.rmtree(top / REPLACED, ignore_errors=True)
    finally:
        for top in tops:
            shutil.rmtree(top / STAGING, ignore_errors=True)
    return asdict(contents) | {"tables": rows}


def check(stream: IO[bytes]) -> Contents:
    """Reads a backup to its end without keeping anything of it. Raises ArchiveRefused."""
    contents = archive.read(stream, lambda _: None)
    _known_schema(contents.about)
    return contents


# -- what must not be there --------------------------------------------------------------------------------------------


async def _refuse_while_it_runs(settings: GatewaySettings) -> None:
    try:
        async with httpx.AsyncClient(timeout=2, trust_env=False) as client:
            answer = await client.get(f"{settings.gateway_url.rstrip('/')}/livez")
    except httpx.HTTPError:
        return
    if answer.is_success:
        raise Conflict(f"the gateway at {settings.gateway_url} runs", actions=("Stop all services, then restore.",))


async def _refuse_what_is_there(settings: GatewaySettings, roots: dict[str, Path]) -> None:
    for name, folder in roots.items():
        if held := holdings(folder):
            raise NotEmpty(f"the {name} folder holds {held[0].name!r} and {len(held) - 1} more")
    if await _has_people(settings):
        raise NotEmpty("the database has accounts")


async def _has_people(settings: GatewaySettings) -> bool:
    file = settings.sqlite_file
    if file is not None and not file.exists():
        return False

    def look(connection: Connection) -> bool:
        users = next((table for table in tables.tables_of(connection) if table.name == "users"), None)
        return users is not None and connection.execute(select(users).limit(1)).first() is not None

    engine = create_engine(settings)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(look)
    finally:
        await engine.dispose()


# -- files -------------------------------------------------------------------------------------------------------------


def _stage(stream: IO[bytes], roots: dict[str, Path], tops: list[Path], lines: Path) -> Contents:
    """The whole backup beside what is there. Raises ArchiveRefused."""
    for top in tops:
        shutil.rmtree(top / STAGING, ignore_errors=True)
        (top / STAGING / FILES).mkdir(parents=True)

    def keep(name: PurePosixPath) -> Path | None:
        if name.parts[0] == DATABASE:
            return lines.joinpath(*name.parts[1:])
        if name.parts[1] not in NAMES:
            raise ArchiveRefused(f"the backup has a folder {name.parts[1]!r}, which is none of {', '.join(NAMES)}")
        if name.parts[1] not in roots:
            return None  # objects of a folder, and here a server keeps them
        return staged(roots[name.parts[1]], tops).joinpath(*name.parts[2:])

    contents = archive.read(stream, keep)
    _known_schema(contents.about)
    return contents


def _known_schema(about: dict[str, Any]) -> None:
    known = {path.name.partition("_")[0] for path in (MIGRATIONS / "versions").glob("[0-9]*_*.py")}
    if about.get("schema") not in known:
        raise ArchiveRefused(
            f"the backup has the schema {about.get('schema')!r}, this version knows up to {head_revision()}",
            actions=("Restore it with the version that made it, or a later one.",),
        )


def _set_aside(top: Path) -> None:
    """What is there goes out of the way, and is removed when everything else is in its place."""
    aside = top / REPLACED
    for path in holdings(top):
        aside.mkdir(exist_ok=True)
        path.rename(aside / path.name)


def _move_in(top: Path) -> None:
    for path in (top / STAGING / FILES).iterdir():
        path.rename(top / path.name)


# -- rows --------------------------------------------------------------------------------------------------------------


async def _fill(settings: GatewaySettings, schema: str, folder: Path) -> dict[str, int]:
    """The backup's rows in its own schema, then brought up to this version's."""

    def clear(connection: Connection) -> None:
        tables.reflected(connection).drop_all(connection)

    engine = create_engine(settings)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(clear)
        await migrate(settings, "up", schema)
        async with engine.begin() as connection:
            rows = await connection.run_sync(tables.load, folder)
    finally:
        await engine.dispose()
    await migrate(settings)
    return rows
