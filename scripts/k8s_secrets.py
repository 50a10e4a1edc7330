"""Where do the Secrets of deploy/k8s come from? A file of random values, printed as objects. No value has a default."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.secret_file import ensure_secrets

NATS_USERS = ("gateway", "ingest", "preprocessor", "trainer", "models", "inference", "operator")
FILE = Path("var/k8s.env")
DATABASES = {
    "file": "sqlite+aiosqlite:////var/lib/voicewright/gateway.db",
    "inside": "postgresql+asyncpg://voicewright:{POSTGRES_PASSWORD}@postgres/voicewright",
}


def secret_objects(values: Mapping[str, str], database: str = "inside") -> list[dict[str, Any]]:
    """The five Secrets that the manifests name. `database`: a key of DATABASES, or the address itself."""
    url = DATABASES.get(database, database).format_map(values) if database in DATABASES else database
    held = {
        "platform": {"SERVICE_TOKEN": values["SERVICE_TOKEN"]},
        "gateway": {name: values[name] for name in ("JWT_SECRET", "ADMIN_EMAIL", "ADMIN_PASSWORD")}
        | {"DATABASE_URL": url},
        "storage": {name: values[name] for name in ("STORAGE_ACCESS_KEY", "STORAGE_SECRET_KEY")},
        "nats": {user: values[f"NATS_{user.upper()}"] for user in NATS_USERS},
        "postgres": {"POSTGRES_PASSWORD": values["POSTGRES_PASSWORD"]},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": "voicewright"},
            "type": "Opaque",
            "stringData": data,
        }
        for name, data in held.items()
    ]


def ensured(file: Path) -> dict[str, str]:
    """The values of `file`, which is made or completed."""
    more = {f"NATS_{user.upper()}": secrets.token_hex(24) for user in NATS_USERS}
    return ensure_secrets(file, full=True, more=more)


def main(arguments: Sequence[str] | None = None) -> None:
    """`scripts/k8s-secrets`: one List object on standard output."""
    parser = argparse.ArgumentParser(prog="scripts/k8s-secrets", description=__doc__)
    parser.add_argument("--database", default="inside", help="file, inside (default), or postgresql+asyncpg://…")
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    options = parser.parse_args(arguments)
    if options.database not in DATABASES and "://" not in options.database:
        parser.error(f"--database {options.database}: file, inside, or an address such as postgresql+asyncpg://…")
    items = secret_objects(ensured(options.file), options.database)
    json.dump({"apiVersion": "v1", "kind": "List", "items": items}, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
