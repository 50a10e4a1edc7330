"""Which fixture folders are there, of which kind is each, and how did the comparison end?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.voice.reference.facts import Facts
from libs.voice.reference.fullsize import check_fullsize
from libs.voice.reference.hubert import check_hubert
from libs.voice.reference.inventory import check_inventory
from libs.voice.reference.ledger import Ledger, Row, is_for_people
from libs.voice.reference.pipeline import check_pipeline
from libs.voice.reference.realtime import check_realtime
from libs.voice.reference.rmvpe import check_rmvpe
from libs.voice.reference.synthesizer import check_stages

SHARED_FILES = ("recipe.json",)
"""Beside the folders: what they have in common."""

# A checker gets the document, the folder's account, and the name of the arrays that belong to the document.
_CHECKERS: dict[str, Callable[[Facts, Ledger, str], None]] = {
    "synthesizer stages": lambda facts, ledger, archive: check_stages(facts, ledger),
    "full-size networks, weights from recipe.json": check_fullsize,
    "RMVPE": check_rmvpe,
    "fairseq hubert checkpoint": lambda facts, ledger, archive: check_hubert(facts, ledger),
    "pipeline pieces": check_pipeline,
    "realtime path": check_realtime,
    "inventory": lambda facts, ledger, archive: check_inventory(facts, ledger),
}
KINDS = tuple(_CHECKERS)


@dataclass(frozen=True)
class Outcome:
    """All rows of a run, and the arrays that were only inputs."""

    rows: list[Row]
    inputs: dict[str, list[str]]
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether there was something to compare and all of it was right."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite error is null, with its reason."""
        rows = [{**asdict(row), "error": row.error if row.error != float("inf") else None} for row in self.rows]
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "quantities": len(rows),
            "failed": sum(not row.ok for row in self.rows),
            "rows": rows,
            "inputs": self.inputs,
        }


def check_folder(root: Path, report: Callable[[Row], None] | None = None) -> Outcome:
    """Compare every fixture folder under `root`; `report` gets each row as it comes.

    A folder without fixtures, of an unknown kind, or with something that no check knows gives failed rows, never an
    exception; no folder at all gives no rows.
    """
    began = time.monotonic()
    rows: list[Row] = []
    inputs: dict[str, list[str]] = {}
    for folder in fixture_folders(root):
        ledger = Ledger(folder, str(folder.relative_to(root)))
        _check_one(ledger)
        rows += ledger.rows
        inputs[ledger.name] = ledger.inputs()
        for row in ledger.rows:
            if report is not None:
                report(row)
    if rows:
        stray = [path.name for path in sorted(root.iterdir()) if path.is_file() and not is_for_people(path)]
        for name in stray:
            if name not in SHARED_FILES:
                rows.append(Row(".", "not checked", name, float("inf"), 0.0, False, "it lies beside the folders"))
                if report is not None:
                    report(rows[-1])
    return Outcome(rows, inputs, time.monotonic() - began)


def fixture_folders(root: Path) -> list[Path]:
    """Every folder below `root` that holds files, sorted."""
    folders = [path for path in sorted(root.rglob("*")) if path.is_dir()]
    return [folder for folder in folders if any(path.is_file() for path in folder.iterdir())]


def _check_one(ledger: Ledger) -> None:
    documents: dict[str, Facts] = {}
    for name in ledger.files(".json"):
        with ledger.part(name):
            content = json.loads(ledger.file(name).read_text(encoding="utf-8"))
            kind = kind_of(content)
            if kind not in _CHECKERS:
                ledger.fail("kind", f"{kind!r} is not known; known are {', '.join(KINDS)}")
                continue
            documents[name] = Facts(content)
            _CHECKERS[kind](documents[name], ledger, name.removesuffix(".json") + ".npz")
    if not ledger.files(".json"):
        ledger.fail("", "no JSON here says what this folder holds")
    ledger.close(documents)


def kind_of(content: Any) -> str | None:
    """The kind that a JSON names; lists of tensors name none and are told by their entries."""
    if not isinstance(content, dict):
        return None
    if "kind" not in content and {"name", "n_keys", "keys"} <= content.keys():
        return "inventory"
    kind = content.get("kind")
    return kind if isinstance(kind, str) else None
