"""Is docs/features.md complete, and does each test that it names exist?"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
DOCUMENT = (PROJECT / "docs" / "features.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| (?P<id>(?:F-|D-|\d\.)[\w.-]+) \| (?P<what>.+?) \| (?P<where>.+?) \| (?P<proof>.+) \|$", re.M)
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

# The numbers that the requirements use; some are left out there on purpose.
FEATURES = {
    *range(1, 38), *range(40, 79), *range(80, 108), *range(110, 118), *range(120, 126), *range(130, 145),
    *range(150, 154), *range(160, 175), *range(180, 191), *range(200, 205), *range(210, 217),
}  # fmt: skip
DIFFERENCES = range(1, 29)
STEPS = {2: 9, 3: 9, 4: 6, 5: 8, 6: 8}


def rows() -> dict[str, str]:
    """The proof of each id."""
    return {row["id"]: row["proof"] for row in ROW.finditer(DOCUMENT)}


@cache
def functions_of(path: str) -> dict[str, bool]:
    """The test functions of a file, and whether each is skipped without any condition."""
    tree = ast.parse((PROJECT / path).read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {
        node.name: any("mark.skip" in ast.unparse(d) and "skipif" not in ast.unparse(d) for d in node.decorator_list)
        for node in functions
    }


def test_every_feature_of_the_requirements_has_its_row():
    listed = set(rows())

    wanted = {f"F-{number:03}" for number in FEATURES} | {f"D-{number:02}" for number in DIFFERENCES}
    wanted |= {f"{step}.{point}" for step, points in STEPS.items() for point in range(1, points + 1)}

    assert wanted - listed == set()


def test_no_id_is_listed_twice():
    ids = [row["id"] for row in ROW.finditer(DOCUMENT)]

    assert sorted(ids) == sorted(set(ids))


def test_every_row_names_a_test_or_says_not_yet():
    assert {key: proof for key, proof in rows().items() if not TEST.search(proof) and proof != "not yet"} == {}


def test_every_named_test_exists_and_is_not_switched_off():
    named = {match for proof in rows().values() for match in TEST.findall(proof)}

    absent = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if not (PROJECT / path).is_file() or name not in functions_of(path)
    ]
    skipped = [
        f"{path}::{name}"
        for path, name in sorted(named)
        if f"{path}::{name}" not in absent and functions_of(path)[name]
    ]

    assert absent == []
    assert skipped == []
    assert len(named) > 50


def test_rows_that_are_no_rows_are_noticed():
    """A row with a broken cell count would be invisible to the tests above."""
    lines = [line for line in DOCUMENT.splitlines() if re.match(r"\| (F-|D-|\d\.)", line)]

    assert len(lines) == len(rows())
