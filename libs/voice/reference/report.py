"""How is a comparison told: line by line on a terminal, and part by part in the documentation?"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

from libs.voice.reference.ledger import Row
from libs.voice.reference.run import Outcome

COLUMNS = ("fixture", "quantity", "max abs error", "tolerance", "ok")
WIDTHS = (14, 74, 13, 10)
_GENERATED = re.compile(r"(<!-- comparison -->\n).*?(<!-- end -->)", re.S)


def heading() -> str:
    """The first line of the table."""
    return _line(COLUMNS)


def line(row: Row) -> str:
    """One quantity on one line, with the reason when it failed for one."""
    quantity = f"{row.part}: {row.quantity}" if row.quantity else row.part
    told = _line((row.fixture, quantity, number(row.error), number(row.tolerance), "ok" if row.ok else "FAILED"))
    return f"{told}  {row.reason}" if row.reason else told


def _line(cells: Sequence[str]) -> str:
    padded = [f"{cell:<{width}}" for cell, width in zip(cells, WIDTHS, strict=False)]
    return "  ".join([*padded, cells[-1]]).rstrip()


def number(value: float) -> str:
    """Few digits; exact agreement is 0."""
    if math.isinf(value):
        return "–"
    return "0" if value == 0 else f"{value:.2g}"


def summary(outcome: Outcome) -> str:
    """The last line."""
    failed = [row for row in outcome.rows if not row.ok]
    if not outcome.rows:
        return "no fixture was found"
    inputs = sum(map(len, outcome.inputs.values()))
    return (
        f"{len(outcome.rows)} quantities compared, {len(failed)} failed; {inputs} arrays were inputs alone; "
        f"{outcome.seconds:.0f} s"
    )


def parts_table(rows: Iterable[Row]) -> str:
    """Markdown, one line per part of a fixture: how many quantities, the largest error, and the tolerance it had.

    The largest error is that of the quantity which came nearest to its tolerance.
    """
    parts: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        parts.setdefault((row.fixture, row.part), []).append(row)
    lines = [
        "| fixture | compared | quantities | largest error | its tolerance | ok |",
        "| --- | --- | ---: | ---: | ---: | --- |",
    ]
    for (fixture, part), held in parts.items():
        worst = max(held, key=lambda row: (not row.ok, row.error / row.tolerance if row.tolerance else 0.0, row.error))
        exact = all(row.error == 0 for row in held)
        error, limit = ("0", "exact") if exact else (number(worst.error), number(worst.tolerance))
        ok = "yes" if all(row.ok for row in held) else "**no**"
        lines.append(f"| {fixture} | {part} | {len(held)} | {error} | {limit} | {ok} |")
    return "\n".join(lines) + "\n"


def renew_document(path: Path, outcome: Outcome, day: date) -> None:
    """Write the table into the document's part between `<!-- comparison -->` and `<!-- end -->`.

    Raises ValueError when the document has no such part.
    """
    text = path.read_text(encoding="utf-8")
    body = f"{day.isoformat()}, {summary(outcome)}:\n\n{parts_table(outcome.rows)}"
    renewed, count = _GENERATED.subn(lambda found: found[1] + body + found[2], text)
    if count != 1:
        raise ValueError(
            f"{path.name} has {count} parts between `<!-- comparison -->` and `<!-- end -->`; one is needed"
        )
    path.write_text(renewed, encoding="utf-8")
