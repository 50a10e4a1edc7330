"""How much room is left where the platform writes? Asked anew at every look at the metrics."""

from __future__ import annotations

import math
import shutil
from functools import partial
from pathlib import Path

from libs.common.metrics import DISK_FREE, DISK_SIZE
from libs.common.settings import CommonSettings


def watch(settings: CommonSettings) -> None:
    """Shows free and whole bytes of the volumes of the data, uploads and models folders."""
    assert settings.uploads_dir
    roots = {"data": settings.data_root, "uploads": settings.uploads_dir, "models": settings.models_root}
    for root, folder in roots.items():
        DISK_FREE.labels(root).set_function(partial(_look, folder, "free"))
        DISK_SIZE.labels(root).set_function(partial(_look, folder, "total"))


def _look(folder: Path, what: str) -> float:
    """Bytes; not a number when the volume does not answer, which no threshold takes for room."""
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        return float(getattr(shutil.disk_usage(there), what))
    except OSError:
        return math.nan
