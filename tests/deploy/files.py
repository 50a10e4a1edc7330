"""The files of deploy/ as values."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

from scripts.deploy_checks.compose_files import VARIABLE, laid_over, load

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "deploy" / "compose"
FILES = sorted(FOLDER.glob("compose*.yaml"))
SERVICES = ("gateway", "ingest", "preprocessor", "trainer", "inference")
STACKS = {
    "plain": ("compose.yaml",),
    "dev": ("compose.yaml", "compose.dev.yaml"),
    "full": ("compose.yaml", "compose.full.yaml"),
    "dev and full": ("compose.yaml", "compose.full.yaml", "compose.dev.yaml"),
    "prod": ("compose.yaml", "compose.full.yaml", "compose.prod.yaml"),
    "prod and gpu": ("compose.yaml", "compose.full.yaml", "compose.prod.yaml", "compose.gpu.yaml"),
}


def loaded(name: str) -> dict[str, Any]:
    """One compose file with its anchors resolved and its variables as they are written."""
    return load(FOLDER / name)


def stack(name: str) -> dict[str, Any]:
    """The files of one of STACKS, laid over each other."""
    merged: dict[str, Any] = reduce(laid_over, (loaded(file) for file in STACKS[name]))
    return merged


def variables(text: str) -> list[re.Match[str]]:
    """Every `${NAME…}` of a text."""
    return list(VARIABLE.finditer(text))
