"""Does a platform come back from its backup, and is everything else refused before anything is touched?"""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from libs.common.errors import Conflict, PlatformError, Unavailable
from services.gateway.backup import __main__ as command_line
from services.gateway.backup import archive, tables
from services.gateway.backup.archive import ArchiveRefused, Writer
from services.gateway.backup.making import make
from services.gateway.backup.restoring import NotEmpty, check, restore
from services.gateway.backup.roots import holdings, roots_of
from services.gateway.database import Database
from services.gateway.migrate import all_tables
from services.gateway.settings import GatewaySettings
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import House, create_database, gateway_settings, running_house
from tests.integration.gateway.voices_made import make_voice

PROJECT = Path(__file__).parents[3]
SAMPLES = {
    str: "größer",
    int: 7,
    float: 0.25,
    bool: True,
    bytes: b"\x00\xff",
    object: {"größe": [1, None, "2"]},
    datetime: datetime(2026, 2, 28, 23, 59, 59, 999_999, tzinfo=UTC),
}


async def rows_of(settings: GatewaySettings) -> dict[str, list[Any]]:
    """Every row of every table, but for the broker's identity, which a restore changes on purpose."""
    database = Database(settings)

    def read(connection: Any) -> dict[str, list[Any]]:
        found = {}
        for table in tables.tables_of(connection):
            rows = connection.execute(select(table).order_by(*table.primary_key)).mappings()
            found[table.name] = [{name: tables._plain(value) for name, value in row.items()} for row in rows]
        return found

    async with database.engine.connect() as connection:
        found = await connection.run_sync(read)
    await database.close()
    found.pop("broker_store")
    return found


def files_of(settings: GatewaySettings) -> dict[str, Any]:
    """Every file and link below the roots, by name."""
    found: dict[str, Any] = {}
    for name, root in roots_of(settings).items():
        for path in sorted(root.rglob("*")):
            if path.is_symlink():
                found[f"{name}/{path.relative_to(root)}"] = os.readlink(path)
            elif path.is_file():
                found[f"{name}/{path.relative_to(root)}"] = (path.read_bytes(), int(path.stat().st_mtime))
    return found


async def lived_in(house: House) -> None:
    """Somebody with recordings and a voice, and the traces that work leaves."""
    anna = await house.person()
    await anna.upload("Anna, größer", "one")
    await anna.upload("Anna, größer", "two", speaker_id=1)
    await make_voice(house, anna)
    data, models = house.settings.data_root, house.settings.models_root
    run = data / "anna" / ".steps" / "job_1" / "train" / ".attempt-1"
    run.mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 1}\n')
    (data / "anna" / "metrics.jsonl").symlink_to(".steps/job_1/train/.attempt-1/metrics.jsonl")
    os.link(run / "metrics.jsonl", run / "adopted.jsonl")
    (models / "anna-warm" / "voice.json").write_text("{}")
    for name in (".logs", ".trash"):
        (data / name).mkdir()
        (data / name / "nobody-misses").write_text("it")


async def fill(settings: GatewaySettings) -> None:
    """Every column of a row in every table that is empty, whichever tables there are by now."""
    database = Database(settings)
    async with database.engine.begin() as connection:
        for table in all_tables().metadata.sorted_tables:
            if (await connection.execute(select(table).limit(1))).first() is None:
                row = {}
                for column in table.columns:
                    if column.foreign_keys:
                        [parent] = column.foreign_keys
                        row[column.name] = (await connection.execute(select(parent.column).limit(1))).scalar_one()
                    else:
                        row[column.name] = SAMPLES[getattr(column.type, "impl", column.type).python_type]
                await connection.execute(table.insert().values(row))
    await database.close()


async def kept(settings: GatewaySettings) -> bytes:
    stream = io.BytesIO()
    await make(settings, stream)
    return stream.getvalue()


@pytest.fixture
async def backup(sqlite_house: House) -> bytes:
    await lived_in(sqlite_house)
    return await kept(sqlite_house.settings)


@pytest.fixture
def elsewhere(tmp_path: Path) -> GatewaySettings:
    """An empty place."""
    return gateway_settings(tmp_path / "elsewhere", gateway_url="http://127.0.0.1:1")


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
async def test_every_row_and_every_file_comes_back_whichever_the_database(
    house: House, target: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    await lived_in(house)
    await fill(house.settings)
    changes = {"gateway_url": "http://127.0.0.1:1"}
    if target == "postgresql":
        changes["database_url"] = await create_database(request.getfixturevalue("postgres"))
    there = gateway_settings(tmp_path / "there", **changes)

    told = await restore(there, io.BytesIO(await kept(house.settings)))

    assert all((await rows_of(house.settings)).values())
    assert await rows_of(there) == await rows_of(house.settings)
    expected = {name: what for name, what in files_of(house.settings).items() if "nobody-misses" not in name}
    assert files_of(there) == expected
    assert len(expected) > 5
    assert told["tables"]["users"] == 2
    assert told["changed"] == []
    attempt = there.data_root / "anna/.steps/job_1/train/.attempt-1"
    assert (attempt / "adopted.jsonl").samefile(attempt / "metrics.jsonl")


async def test_a_restored_platform_serves_the_same_people_and_goes_on(
    backup: bytes, elsewhere: GatewaySettings, tmp_path: Path
) -> None:
    await restore(elsewhere, io.BytesIO(backup))

    async with running_house(tmp_path / "elsewhere", elsewhere.database_url) as house:
        admin = house.stranger()
        login = {"email": "admin@example.org", "password": "a-long-password"}
        token = (await admin.post("/api/v1/auth/login", json=login)).json()["access_token"]
        admin.headers["Authorization"] = f"Bearer {token}"
        (voice,) = (await admin.get("/api/v1/models")).json()["items"]
        (dataset,) = (await admin.get("/api/v1/datasets")).json()["items"]
        ben = await house.person("ben")
        more = await ben.upload("another", "three")

    assert (voice["name"], voice["status"]) == ("Anna, warm", "ready")
    assert dataset["name"] == "Anna, größer"
    assert more["dataset"]["id"] != dataset["id"]


async def test_folders_that_lie_elsewhere_there_get_what_is_theirs(
    backup: bytes, elsewhere: GatewaySettings, tmp_path: Path
) -> None:
    """As from processes, with uploads below the data, into containers, with the objects below it."""
    there = gateway_settings(
        tmp_path / "there",
        gateway_url="http://127.0.0.1:1",
        uploads_dir=tmp_path / "there" / "recordings",
        storage_url=(tmp_path / "there" / "data" / ".objects").as_uri(),
    )
    by_server = gateway_settings(
        tmp_path / "s3",
        gateway_url="http://127.0.0.1:1",
        storage_url="s3+http://127.0.0.1:1",
        storage_access_key="key",
        storage_secret_key="secret",
    )
    await restore(elsewhere, io.BytesIO(backup))
    kept_there = elsewhere.data_root.parent / "objects" / "voice-models" / "one"
    kept_there.parent.mkdir(parents=True)
    kept_there.write_text("a copy")
    (elsewhere.data_root / "uploads" / "anna").mkdir(parents=True)
    (elsewhere.data_root / "uploads" / "anna" / "original.wav").write_text("sound")
    content = await kept(elsewhere)

    await restore(there, io.BytesIO(content))
    await restore(by_server, io.BytesIO(content))

    assert (there.data_root / ".objects" / "voice-models" / "one").read_text() == "a copy"
    assert (tmp_path / "there" / "recordings" / "anna" / "original.wav").read_text() == "sound"
    assert not (there.data_root / "uploads").exists()
    assert (there.data_root / "anna" / "metrics.jsonl").read_text() == '{"step": 1}\n'
    assert not list((tmp_path / "s3").rglob("voice-models"))
    await restore(elsewhere, io.BytesIO(await kept(there)), replace=True)
    assert kept_there.read_text() == "a copy"


def members(content: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        return [(info, (tar.extractfile(info) or io.BytesIO()).read() if info.isreg() else b"") for info in tar]


def packed(entries: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def changed(content: bytes, what: str) -> bytes:
    entries = members(content)
    names = [info.name for info, _ in entries]
    weights = next(n for n, name in enumerate(names) if name.endswith(".pth"))
    if what == "a foreign archive":
        return packed([(tarfile.TarInfo("photo.jpg"), b"x")])
    if what == "no archive":
        return b"not a tar file at all" * 1000
    if what == "empty":
        return b""
    if what == "a byte of a voice":
        info, data = entries[weights]
        entries[weights] = (info, b"W" + data[1:])
    if what == "a file is missing":
        del entries[weights]
    if what == "a file more":
        entries.insert(weights, (tarfile.TarInfo("files/models/more.pth"), b"x"))
    if what == "a later schema":
        about = json.loads(entries[0][1]) | {"schema": "9999"}
        entries[0] = (entries[0][0], json.dumps(about).encode())
    if what == "another format":
        entries[0] = (entries[0][0], json.dumps({"format": "voicewright-backup/99"}).encode())
    if what == "a name that leaves":
        entries.insert(1, (tarfile.TarInfo("files/data/../../../escaped"), b"x"))
    if what == "an absolute name":
        entries.insert(1, (tarfile.TarInfo("/tmp/escaped"), b"x"))
    if what in ("a link that leaves", "a file behind a link", "a device"):
        link = tarfile.TarInfo("files/data/link")
        link.type = tarfile.CHRTYPE if what == "a device" else tarfile.SYMTYPE
        link.linkname = "." if what == "a file behind a link" else "../../../.."
        entries.insert(1, (link, b""))
        if what == "a file behind a link":
            entries.insert(2, (tarfile.TarInfo("files/data/link/x"), b"x"))
    if what == "a root that is none here":
        entries.insert(1, (tarfile.TarInfo("files/etc/passwd"), b"x"))
    return packed(entries)


BROKEN = [
    *("a foreign archive", "no archive", "empty", "a byte of a voice", "a file is missing", "a file more"),
    *("a later schema", "another format", "a name that leaves", "an absolute name", "a link that leaves"),
    *("a file behind a link", "a device", "a root that is none here"),
]


async def refuse(settings: GatewaySettings, content: bytes, error: type[PlatformError] = ArchiveRefused) -> None:
    with pytest.raises(error):
        await restore(settings, io.BytesIO(content))


async def test_a_broken_or_hostile_backup_is_refused_and_changes_nothing(
    backup: bytes, elsewhere: GatewaySettings, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    for what in BROKEN:
        await refuse(elsewhere, changed(backup, what))
    for share in (0.01, 0.3, 0.7, 0.99):
        await refuse(elsewhere, backup[: int(share * len(backup))])

    left = {path for path in tmp_path.rglob("*") if path not in before and not path.is_dir()}
    assert left == set()
    assert all(holdings(root) == [] for root in roots_of(elsewhere).values())
    await restore(elsewhere, io.BytesIO(backup))


async def test_a_platform_that_is_there_is_kept_unless_it_is_said_to_be_lost(
    backup: bytes, elsewhere: GatewaySettings, tmp_path: Path
) -> None:
    await restore(elsewhere, io.BytesIO(backup))
    (elsewhere.models_root / "own-work").mkdir()
    (elsewhere.models_root / "own-work" / "voice.json").write_text("{}")
    before = files_of(elsewhere)

    await refuse(elsewhere, backup, NotEmpty)
    only_rows = gateway_settings(
        tmp_path / "rows", database_url=elsewhere.database_url, gateway_url="http://127.0.0.1:1"
    )
    await refuse(only_rows, backup, NotEmpty)
    with pytest.raises(ArchiveRefused):
        await restore(elsewhere, io.BytesIO(backup[: len(backup) // 2]), replace=True)
    assert files_of(elsewhere) == before

    await restore(elsewhere, io.BytesIO(backup), replace=True)
    assert "models/own-work/voice.json" not in files_of(elsewhere)
    assert not list(elsewhere.data_root.glob(".re*"))


async def test_nothing_is_restored_under_a_running_gateway(sqlite_house: House, elsewhere: GatewaySettings) -> None:
    running = elsewhere.model_copy(update={"gateway_url": sqlite_house.url})

    with pytest.raises(Conflict, match="runs"):
        await restore(running, io.BytesIO(b""))


async def test_a_database_without_a_schema_has_nothing_to_keep(elsewhere: GatewaySettings) -> None:
    with pytest.raises(Unavailable, match="no schema"):
        await kept(elsewhere)


def test_a_file_that_shrinks_or_goes_while_it_is_read_is_named_and_the_backup_stays_whole(tmp_path: Path) -> None:
    shrinks, goes = tmp_path / "in" / "a-shrinks", tmp_path / "in" / "b-goes"
    shrinks.parent.mkdir()
    shrinks.write_bytes(b"x" * 3_000_000)
    goes.write_bytes(b"y")

    def skip(path: Path) -> bool:
        if path == goes:
            goes.unlink()
        return False

    class Cutting(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 100_000 and shrinks.stat().st_size > 1_500_000:
                os.truncate(shrinks, 1_500_000)
            return super().write(data)

    stream = Cutting()
    writer = Writer(stream, {"schema": "0001"})
    writer.add_folder("files/data", shrinks.parent, skip)
    writer.finish()

    assert writer.changed == ["files/data/a-shrinks", "files/data/b-goes"]
    stream.seek(0)
    contents = archive.read(stream, lambda _: None)
    assert (contents.entries, contents.bytes, contents.changed) == (1, 3_000_000, writer.changed)


def test_check_reads_a_backup_and_keeps_nothing(backup: bytes) -> None:
    contents = check(io.BytesIO(backup))

    assert contents.tables["users"] == 1
    assert contents.about["roots"] == ["data", "models", "objects", "uploads"]


def run(settings: GatewaySettings, *command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "SERVICE_TOKEN": TOKEN,
        "DATA_ROOT": str(settings.data_root),
        "MODELS_ROOT": str(settings.models_root),
        "DATABASE_URL": settings.database_url,
        "STORAGE_URL": settings.storage_url,
        "GATEWAY_URL": "http://127.0.0.1:1",
    }
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)


async def test_the_command_line_makes_a_file_for_its_owner_alone_and_restores_it(
    sqlite_house: House, elsewhere: GatewaySettings, tmp_path: Path
) -> None:
    await lived_in(sqlite_house)
    file = tmp_path / "kept.tar"

    def python(*words: str | Path) -> list[str | Path]:
        return [sys.executable, "-m", "services.gateway.backup", *words]

    made = run(sqlite_house.settings, *python("make", file))
    restored = run(elsewhere, *python("restore", file))

    assert made.returncode == 0, made.stderr
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.glob("kept*")) == ["kept.tar"]
    assert restored.returncode == 0, restored.stderr
    assert json.loads(restored.stderr)["restore"]["tables"]["users"] == 2


def test_the_command_line_says_in_a_line_what_it_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["backup", "check", str(PROJECT / "README.md")])
    with pytest.raises(SystemExit, match="no whole backup"):
        command_line.main()

    monkeypatch.setattr(sys, "argv", ["backup", "check", "/not/there.tar"])
    with pytest.raises(SystemExit, match="No such file"):
        command_line.main()
