"""A private PostgreSQL for tests: `TEST_POSTGRES_URL`, or a cluster of our own from the server that is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scripts.processes import free_port

_PLACES = ("/usr/lib/postgresql", "/opt/homebrew/opt/postgresql/bin", "/usr/local/pgsql/bin")


def _folder_of_binaries() -> Path | None:
    """Where `initdb` and `pg_ctl` lie, the newest version first; wrappers of other names are not looked at."""
    found = [Path(place) for place in _PLACES if (Path(place) / "initdb").exists()]
    found += sorted(
        (path.parent for path in Path(_PLACES[0]).glob("*/bin/initdb")),
        key=lambda p: float(p.parent.name),
        reverse=True,
    )
    if not found and (which := shutil.which("initdb")):
        found = [Path(which).resolve().parent]
    return found[0] if found else None


def _somebody() -> pwd.struct_passwd | None:
    """PostgreSQL refuses to run as root: the account to use instead, None when we are nobody special."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    pytest.skip("no account other than root to run PostgreSQL with")


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a server whose user may create databases; skips, with the reason, when there is none."""
    given = os.environ.get("TEST_POSTGRES_URL")
    if given:
        yield given.rstrip("/")
        return
    binaries = _folder_of_binaries()
    if binaries is None:
        pytest.skip("no PostgreSQL server is installed, and TEST_POSTGRES_URL names none")
    account = _somebody()
    folder = Path(tempfile.mkdtemp(prefix="voicewright-pg-"))
    port = free_port()
    if account is not None:
        os.chown(folder, account.pw_uid, account.pw_gid)

    def call(*command: str) -> None:
        subprocess.run(
            [str(binaries / command[0]), *command[1:]],
            check=True,
            capture_output=True,
            cwd=folder,
            timeout=60,
            **({"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []} if account else {}),
        )

    data = folder / "data"
    try:
        call("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C")
        fast = f"-h 127.0.0.1 -p {port} -k {folder} -F -c synchronous_commit=off -c full_page_writes=off"
        call("pg_ctl", "-D", str(data), "-w", "-t", "30", "-l", str(folder / "log"), "-o", fast, "start")
        try:
            yield f"postgresql+asyncpg://tester@127.0.0.1:{port}"
        finally:
            call("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
