"""Every public function of the engine says what it does, and whoever takes or gives arrays says their shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "libs" / "voice"
ARRAY = re.compile(r"\b(NDArray|Tensor|Float|Float32|Float64|Int64|Wave)\b")
CONTAINER = re.compile(r"\b(Mapping|dict|Judgement)\b")
"""Weights by name and judges' verdicts have no one shape."""
SHAPE = re.compile(r"\[[^\]]*\]|\bshape\b|\bSee `")
"""`[b, c, t]`, `of any shape`, or where it is said: See `ContentEncoder.encode`."""


@dataclass(frozen=True)
class Public:
    """A module, class, function or method that others may use; `around` is the docstring of its module or class."""

    place: str
    node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    around: str = ""

    @property
    def says(self) -> str:
        """Its docstring. `forward` is all that a network's class describes, and speaks through it."""
        speaker = self.around if getattr(self.node, "name", "") == "forward" else ""
        return ast.get_docstring(self.node) or speaker

    @property
    def takes_or_gives_arrays(self) -> bool:
        if isinstance(self.node, ast.Module | ast.ClassDef):
            return False
        arguments = (*self.node.args.posonlyargs, *self.node.args.args, *self.node.args.kwonlyargs)
        written = [ast.unparse(each.annotation) for each in arguments if each.annotation]
        written += [ast.unparse(self.node.returns)] if self.node.returns else []
        return any(ARRAY.search(text) and not CONTAINER.search(text) for text in written)


def public_of(file: Path) -> Iterator[Public]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    place = str(file.relative_to(ENGINE.parents[1]))
    if tree.body:
        yield Public(place, tree)
    yield from _inside(tree, place)


def _inside(parent: ast.Module | ast.ClassDef, place: str) -> Iterator[Public]:
    around = ast.get_docstring(parent) or ""
    for node in parent.body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        yield Public(f"{place}:{node.lineno} {node.name}", node, around)
        if isinstance(node, ast.ClassDef):
            yield from _inside(node, place)


FILES = sorted(ENGINE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ENGINE)))
def test_what_is_public_in_the_engine_says_what_it_is_and_in_which_shapes(file: Path) -> None:
    found = list(public_of(file))

    silent = [each.place for each in found if not each.says]
    shapeless = [
        each.place for each in found if each.takes_or_gives_arrays and not SHAPE.search(each.says + each.around)
    ]

    assert silent == []
    assert shapeless == []


SILENT = """
def told(x: Tensor) -> None:
    "It works."
class Holder:
    "Holds something."
    def quiet(self) -> None: ...
    def given(self, x: Tensor) -> None:
        "Takes `[T]`."
"""


def test_the_rule_finds_what_is_missing() -> None:
    found = {each.place.split()[-1]: each for each in _inside(ast.parse(SILENT), "m.py")}

    assert len(FILES) > 100
    assert [name for name, each in found.items() if not each.says] == ["quiet"]
    assert [name for name, each in found.items() if each.takes_or_gives_arrays] == ["told", "given"]
    assert [name for name, each in found.items() if SHAPE.search(each.says)] == ["given"]
