"""Which folders hold what the platform keeps, and what in them is not worth keeping?

Some may lie inside others, and elsewhere otherwise: each is kept by itself and put where it lies then.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.gateway.backup.archive import FILES, STAGING
from services.gateway.settings import GatewaySettings

NAMES = ("data", "models", "uploads", "objects")
# Logs, what is being removed, and what half-done uploads and checks leave for a moment.
TRANSIENT = frozenset({".logs", ".trash", STAGING, ".replaced", "lost+found"})
BEGINNINGS = (".probe-", ".new-")


def roots_of(settings: GatewaySettings) -> dict[str, Path]:
    """Each folder by its name in a backup.

    The object store is among them when it is a folder; a server of objects has backups of its own.
    """
    assert settings.uploads_dir
    found = {"data": settings.data_root, "models": settings.models_root, "uploads": settings.uploads_dir}
    if settings.storage_url.startswith("file:"):
        found["objects"] = Path(unquote(urlsplit(settings.storage_url).path))
    return found


def tops_of(roots: Iterable[Path]) -> list[Path]:
    """Those that lie in no other."""
    every = set(roots)
    return sorted(one for one in every if not any(one != other and one.is_relative_to(other) for other in every))


def staged(path: Path, tops: Iterable[Path]) -> Path:
    """Where a path waits inside its own volume until everything has been checked."""
    top = next(top for top in tops if path.is_relative_to(top))
    return top / STAGING / FILES / path.relative_to(top)


def is_transient(path: Path) -> bool:
    """Whether nobody would miss it."""
    return path.name in TRANSIENT or path.name.startswith(BEGINNINGS)


def holdings(folder: Path) -> list[Path]:
    """What in a folder is worth keeping; nothing when it is not there."""
    return sorted(path for path in folder.glob("*") if not is_transient(path)) if folder.is_dir() else []
