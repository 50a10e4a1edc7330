"""Which folders hold what the platform keeps, and what in them is not worth keeping?"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from services.gateway.backup.archive import STAGING
from services.gateway.settings import GatewaySettings

# Logs, what is being removed, and what half-done uploads and checks leave for a moment.
TRANSIENT = frozenset({".logs", ".trash", STAGING, ".replaced", "lost+found"})
BEGINNINGS = (".probe-", ".new-")


def roots_of(settings: GatewaySettings) -> dict[str, Path]:
    """Each folder by its name in a backup; one that lies inside another is kept with that one.

    The object store is among them when it is a folder; a server of objects has backups of its own.
    """
    assert settings.uploads_dir
    found = {"data": settings.data_root, "models": settings.models_root, "uploads": settings.uploads_dir}
    if settings.storage_url.startswith("file:"):
        found["objects"] = Path(unquote(urlsplit(settings.storage_url).path))
    return {
        name: folder
        for name, folder in found.items()
        if not any(folder != other and folder.is_relative_to(other) for other in found.values())
    }


def is_transient(path: Path) -> bool:
    """Whether nobody would miss it."""
    return path.name in TRANSIENT or path.name.startswith(BEGINNINGS)


def holdings(folder: Path) -> list[Path]:
    """What in a root is worth keeping; nothing when it is not there."""
    return sorted(path for path in folder.glob("*") if not is_transient(path)) if folder.is_dir() else []
