"""Where do the installation's secrets come from? A file of random values that only its owner can read."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Mapping
from pathlib import Path

ADMIN_EMAIL = "admin@localhost.localdomain"


def make_secrets() -> dict[str, str]:
    """New random values for everything that has no default on purpose."""
    return {
        "SERVICE_TOKEN": secrets.token_urlsafe(32),
        "JWT_SECRET": secrets.token_urlsafe(48),
        "ADMIN_EMAIL": ADMIN_EMAIL,
        "ADMIN_PASSWORD": secrets.token_urlsafe(18),
    }


def make_full_secrets() -> dict[str, str]:
    """The same and those of the servers in `deploy/compose/compose.full.yaml`. All fit into a URL as they are."""
    return make_secrets() | {
        "POSTGRES_PASSWORD": secrets.token_urlsafe(24),
        "STORAGE_ACCESS_KEY": secrets.token_hex(10),
        "STORAGE_SECRET_KEY": secrets.token_urlsafe(30),
        "GRAFANA_PASSWORD": secrets.token_urlsafe(18),
    }


def read_secrets(path: Path) -> dict[str, str]:
    """The `NAME=value` lines of `path`; comments and empty lines are skipped. An absent file holds nothing."""
    if not path.is_file():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def ensure_secrets(path: Path, *, full: bool = False, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The secrets of `path`, which is made (mode 600) or completed when a value is missing; others are kept.

    full: also those of the database, the store and the dashboards that run beside the services. more: others, by name.
    """
    found = read_secrets(path)
    wanted = (make_full_secrets() if full else make_secrets()) | dict(more or {})
    missing = {name: value for name, value in wanted.items() if not found.get(name)}
    if not missing:
        return found
    kept = (
        path.read_text().rstrip("\n").splitlines()
        if path.is_file()
        else ["# Secrets of this installation: keep them out of version control. Made by scripts/secrets."]
    )
    kept = [line for line in kept if line.split("=", 1)[0].strip() not in missing]
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([*kept, *(f"{name}={value}" for name, value in missing.items())]) + "\n")
    draft.replace(path)
    return found | missing


def main() -> None:
    """`scripts/secrets [--full] [FILE]`: makes or completes FILE and says which names are new, never values."""
    parser = argparse.ArgumentParser(prog="scripts/secrets", description=__doc__)
    parser.add_argument("--full", action="store_true", help="also for PostgreSQL, the object store and Grafana")
    parser.add_argument("file", nargs="?", type=Path, default=Path(".env"))
    options = parser.parse_args()
    path: Path = options.file
    before = set(read_secrets(path))
    added = [name for name in ensure_secrets(path, full=options.full) if name not in before]
    print(f"{path}: " + (f"made {', '.join(added)}" if added else "complete, nothing to do") + " (mode 600)")
    path.chmod(0o600)


if __name__ == "__main__":
    main()
