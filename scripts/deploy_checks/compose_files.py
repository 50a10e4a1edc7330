"""What do the compose files say when they are laid over each other, as compose itself lays them?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

# Every combination that scripts/compose can choose, by its options.
STACKS: dict[str, tuple[str, ...]] = {
    "": ("compose.yaml",),
    "--gpu": ("compose.yaml", "compose.gpu.yaml"),
    "--dev": ("compose.yaml", "compose.dev.yaml"),
    "--dev --gpu": ("compose.yaml", "compose.dev.yaml", "compose.gpu.yaml"),
    "--full": ("compose.yaml", "compose.full.yaml"),
    "--full --gpu": ("compose.yaml", "compose.full.yaml", "compose.gpu.yaml"),
    "--dev --full": ("compose.yaml", "compose.full.yaml", "compose.dev.yaml"),
    "--dev --full --gpu": ("compose.yaml", "compose.full.yaml", "compose.dev.yaml", "compose.gpu.yaml"),
    "--prod": ("compose.yaml", "compose.full.yaml", "compose.prod.yaml"),
    "--prod --gpu": ("compose.yaml", "compose.full.yaml", "compose.prod.yaml", "compose.gpu.yaml"),
}
VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_0-9]+)(?P<kind>:?[-?])?(?P<value>[^}]*)\}")


@dataclass(frozen=True)
class Stack:
    """The files of one choice of options, laid over each other. `content`: with its variables as they are written."""

    options: str
    files: tuple[Path, ...]
    content: dict[str, Any]

    @property
    def name(self) -> str:
        return f"compose {self.options}".strip()

    @property
    def services(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = self.content["services"]
        return found


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


def load(path: Path) -> dict[str, Any]:
    """One compose file with its anchors resolved."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return content


def stacks(folder: Path) -> list[Stack]:
    """Every combination of the files of `folder` (deploy/compose)."""
    loaded = {path.name: load(path) for path in sorted(folder.glob("compose*.yaml"))}
    return [
        Stack(options, tuple(folder / name for name in names), reduce(laid_over, (loaded[name] for name in names)))
        for options, names in STACKS.items()
    ]


def with_defaults(text: str) -> str:
    """`text` with each variable replaced by its default, '' where it has none."""
    return VARIABLE.sub(lambda found: found["value"] if (found["kind"] or "").endswith("-") else "", text)
