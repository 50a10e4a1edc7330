"""What does a fixture's JSON say, and which of it has nobody looked at?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

PROSE = frozenset({"kind", "note"})
"""Text for people, wherever it stands."""


class Facts:
    """A part of a JSON document that remembers which entries were read.

    `facts["name"]` gives a value, or Facts for a dictionary or a list of dictionaries; `take` gives whole subtrees as
    they are. `unread` tells what is left.
    """

    def __init__(self, value: Any, path: tuple[str, ...] = (), seen: set[tuple[str, ...]] | None = None) -> None:
        self._value = value
        self._path = path
        self._seen = set() if seen is None else seen

    def __contains__(self, key: str) -> bool:
        return key in self._value

    def __getitem__(self, key: str) -> Any:
        """The entry `key`; raises KeyError with its path when the document lacks it."""
        path = (*self._path, key)
        if key not in self._value:
            raise KeyError(".".join(path))
        value = self._value[key]
        if isinstance(value, dict):
            return Facts(value, path, self._seen)
        if isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            return [Facts(each, (*path, str(i)), self._seen) for i, each in enumerate(value)]
        self._seen.add(path)
        return value

    def get(self, key: str, default: Any = None) -> Any:
        """`facts[key]`, or `default` where there is no such entry."""
        return self[key] if key in self._value else default

    def take(self, key: str | None = None) -> Any:
        """The plain value of `key`, or of all of this part, everything below it counted as read."""
        if key is None:
            self._seen.add(self._path)
            return self._value
        if key not in self._value:
            raise KeyError(".".join((*self._path, key)))
        self._seen.add((*self._path, key))
        return self._value[key]

    def prose(self, *keys: str) -> None:
        """Entries that describe in words what the checks do; nothing in them can be compared."""
        for key in keys:
            if key in self._value:
                self._seen.add((*self._path, key))

    def names(self) -> list[str]:
        """Names of the entries."""
        return list(self._value)

    def items(self) -> list[tuple[str, Any]]:
        """Names and entries, read as by `facts[name]`."""
        return [(key, self[key]) for key in self._value]

    def unread(self) -> list[str]:
        """Dotted paths of the entries that nobody read, shortest first."""
        return [".".join(path) for path in self._leaves(self._value, self._path) if not self._is_seen(path)]

    def _is_seen(self, path: tuple[str, ...]) -> bool:
        return path[-1] in PROSE or any(path[:length] in self._seen for length in range(len(path) + 1))

    def _leaves(self, value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if isinstance(value, dict) and value:
            for key, each in value.items():
                yield from self._leaves(each, (*path, key))
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            for i, each in enumerate(value):
                yield from self._leaves(each, (*path, str(i)))
        elif path:
            yield path
