"""Which values of a stranger's file are a configuration: text, numbers and short containers of them?

A pickle may mention one container many times: "x = [1]", then four times "x = [x] * 300", is 5 kB and eight thousand
million numbers for whoever walks it. So a walk has a budget, and each mention costs.
"""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 8
MAX_VALUES = 10_000
MAX_TEXT = 2**20
"""Characters of all texts together: text that is mentioned often becomes long when it is written as JSON."""


def is_plain(value: Any) -> bool:
    """Whether `value` is what a configuration may hold and JSON can carry: text, finite numbers, truth values, None,
    and lists, tuples and dicts with names of text. At most 10,000 of them and 2^20 characters, every mention counted,
    8 containers deep. Takes no more time than that."""
    return _Walk().takes(value, 0)


class _Walk:
    def __init__(self) -> None:
        self._values, self._text = MAX_VALUES, MAX_TEXT

    def takes(self, value: Any, depth: int) -> bool:
        self._values -= 1
        if self._values < 0:
            return False
        if isinstance(value, str):
            self._text -= len(value)
            return self._text >= 0
        if isinstance(value, float):
            return math.isfinite(value)
        if value is None or isinstance(value, int):
            return True
        if depth > MAX_DEPTH:
            return False
        if isinstance(value, (list, tuple)):
            return all(self.takes(each, depth + 1) for each in value)
        if isinstance(value, dict):
            return all(
                isinstance(k, str) and self.takes(k, depth) and self.takes(v, depth + 1) for k, v in value.items()
            )
        return False
