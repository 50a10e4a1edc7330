"""Which weights does a fixture mean when it names only a seed? Drawn as `recipe.json` beside the folders says.

Its rules are text of a closed form ("name ends with gamma" → "1 + 0.1*n"); text of another form is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Rule = tuple[Callable[[str, tuple[int, ...]], bool], str]
_WORD = r"([\w.]+)"


class WeightRecipe:
    """Weights from seeds, after a `recipe.json`."""

    def __init__(self, path: Path) -> None:
        document = json.loads(path.read_text(encoding="utf-8"))
        if "RandomState(seed + i)" not in document["draw"] or "sorted" not in document["order"]:
            raise ValueError(f"{path.name} draws in a way that is not known here")
        self._rules: list[Rule] = [(_condition(when), _known(value)) for when, value in document["rules_first_match"]]

    def fill(self, module: nn.Module, seed: int) -> None:
        """Give every tensor of `module` its drawn value."""
        state = module.state_dict()
        module.load_state_dict(self.state({name: tuple(value.shape) for name, value in state.items()}, seed))

    def state(self, shapes: Mapping[str, tuple[int, ...]], seed: int) -> dict[str, Tensor]:
        """Drawn tensors of these names and shapes: sorted by name, one frozen random stream each."""
        drawn = {}
        for i, name in enumerate(sorted(shapes)):
            shape = tuple(shapes[name])
            n = np.asarray(np.random.RandomState(seed + i).standard_normal(shape), dtype=np.float32)
            value = next(value for matches, value in self._rules if matches(name, shape))
            drawn[name] = torch.from_numpy(np.asarray(_value(value, n)))
        return drawn


def _condition(text: str) -> Callable[[str, tuple[int, ...]], bool]:
    """The test that a rule's left side describes."""
    if text == "everything else":
        return lambda name, shape: True
    dimensions = {"one-dimensional": 1, "two-dimensional": 2, "three-dimensional": 3, "four-dimensional": 4}
    if text in dimensions:
        return lambda name, shape: len(shape) == dimensions[text]
    if found := re.fullmatch(rf"name starts with {_WORD} and ends with {_WORD}", text):
        return lambda name, shape: name.startswith(found[1]) and name.endswith(found[2])
    if re.fullmatch(r"name (is|ends with) .*|name starts with .*", text):
        return _any_of(text.removeprefix("name "))
    raise ValueError(f"recipe: the rule {text!r} is not known here")


def _any_of(text: str) -> Callable[[str, tuple[int, ...]], bool]:
    """`is a or b`, `ends with a or b`, `is a or ends with b`, `…, or last dotted part starts with c`."""
    tests: list[Callable[[str], bool]] = []
    verb = ""
    for piece in re.split(r",? or ", text):
        found = re.fullmatch(rf"(?:(is|ends with|starts with|last dotted part starts with) )?{_WORD}", piece.strip())
        if found is None:
            raise ValueError(f"recipe: the rule {text!r} is not known here")
        verb = found[1] or verb
        tests.append(_test(verb, found[2]))
    return lambda name, shape: any(test(name) for test in tests)


def _test(verb: str, word: str) -> Callable[[str], bool]:
    tests: dict[str, Callable[[str], bool]] = {
        "is": lambda name: name == word,
        "ends with": lambda name: name.endswith(word),
        "starts with": lambda name: name.startswith(word),
        "last dotted part starts with": lambda name: name.rsplit(".", 1)[-1].startswith(word),
    }
    return tests[verb]


_VALUE = re.compile(
    r"(?:(?P<base>[\d.]+) \+ )?(?:(?P<scale>[\d.]+)\*)?(?P<n>n|\|n\|)(?P<fan>/sqrt\(product of shape\[1:\]\))?"
)


def _known(text: str) -> str:
    if text != "0 (int64)" and _VALUE.fullmatch(text) is None:
        raise ValueError(f"recipe: the value {text!r} is not known here")
    return text


def _value(text: str, n: NDArray[np.float32]) -> NDArray[Any]:
    """`base + scale * n / √fan` in float32, each step rounded as written."""
    if text == "0 (int64)":
        return np.zeros(n.shape, dtype=np.int64)
    found = _VALUE.fullmatch(text)
    assert found is not None
    value: Any = np.abs(n) if found["n"] == "|n|" else n
    if found["scale"]:
        value = np.float32(found["scale"]) * value
    if found["fan"]:
        value = value / np.float32(math.sqrt(math.prod(n.shape[1:])))
    if found["base"]:
        value = np.float32(found["base"]) + value
    return np.asarray(value, dtype=np.float32)
