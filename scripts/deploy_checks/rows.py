"""What did a check look at, and what did it find?"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """One check of one subject. `looked_at`: how much there was; `skipped`: why nothing was looked at, '' if it was."""

    check: str
    subject: str
    looked_at: str = ""
    faults: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def result(self) -> str:
        return "skipped" if self.skipped else f"{len(self.faults)} faults" if self.faults else "ok"

    def as_json(self) -> dict[str, Any]:
        return {
            "check": self.check,
            "subject": self.subject,
            "result": "skipped" if self.skipped else "failed" if self.faults else "ok",
            "looked_at": self.looked_at,
            "faults": list(self.faults),
            "skipped": self.skipped,
        }


def found(check: str, subject: str, looked_at: str, faults: Iterable[str]) -> Row:
    """A row with each fault once, in the order in which they were found."""
    return Row(check, subject, looked_at, tuple(dict.fromkeys(faults)))


def as_table(rows: list[Row]) -> str:
    """The rows in columns, and below them every fault and every reason."""
    cells = [["check", "subject", "looked at", "result"]]
    cells += [[row.check, row.subject, row.looked_at, row.result] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    for row in rows:
        if row.faults or row.skipped:
            lines.append(f"\n{row.check}, {row.subject}:")
            lines += [f"  {text}" for text in row.faults or (f"skipped: {row.skipped}",)]
    return "\n".join(lines)
