"""The files of deploy/ as values, and compose's way of laying one over another."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

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
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_0-9]+)(?P<kind>:?[-?])?(?P<value>[^}]*)\}")


def loaded(name: str) -> dict[str, Any]:
    """One compose file with its anchors resolved and its variables as they are written."""
    content: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return content


def _target(mount: str) -> str:
    """Where a short mount `source:target[:mode]` goes; the source may hold a variable with colons."""
    return VARIABLE.sub("variable", mount).split(":")[1]


def laid_over(below: Any, above: Any, key: str = "") -> Any:
    """What compose makes of two values: mappings and lists join, mounts by target, the rest is replaced."""
    if key in ("command", "entrypoint"):
        return above
    if isinstance(below, dict) and isinstance(above, dict):
        return {
            k: laid_over(below[k], above[k], k) if k in below and k in above else (above if k in above else below)[k]
            for k in {**below, **above}
        }
    if isinstance(below, list) and isinstance(above, list):
        if key == "volumes":
            return list(({_target(m): m for m in below} | {_target(m): m for m in above}).values())
        return [*below, *(item for item in above if item not in below)]
    return above


def stack(name: str) -> dict[str, Any]:
    """The files of one of STACKS, laid over each other."""
    merged: dict[str, Any] = reduce(laid_over, (loaded(file) for file in STACKS[name]))
    return merged


def with_defaults(text: str) -> str:
    """`text` with each variable replaced by its default, '' where it has none."""
    return VARIABLE.sub(lambda found: found["value"] if (found["kind"] or "").endswith("-") else "", text)


def variables(text: str) -> list[re.Match[str]]:
    """Every `${NAME…}` of a text."""
    return list(VARIABLE.finditer(text))
