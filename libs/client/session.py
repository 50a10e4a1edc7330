"""How does a client ask? One connection to one platform, answers as they are and lists page by page."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from libs.client.http import Connection
from libs.client.models import Answer, Page

Item = TypeVar("Item", bound=Answer)


class Session:
    """One account at one platform. All methods raise ApiProblem, SignInNeeded or NotReachable."""

    def __init__(self, url: str, token: str | None = None, refresh_token: str | None = None, **options: Any) -> None:
        """`options` are those of `Connection`: timeout, attempts, pause, transport, on_tokens."""
        self.connection = Connection(url, token, refresh_token, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.connection.close()

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return cast(dict[str, Any], self.connection.request(method, path, **options).json())

    def _pages(self, path: str, model: type[Item], *, limit: int | None = None, **query: Any) -> Iterator[Item]:
        """Every item of a list, page by page, at most `limit`."""
        asked = {name: value for name, value in query.items() if value is not None}
        left = limit
        while left is None or left > 0:
            if left is not None:
                asked["limit"] = min(left, 200)
            page = Page[model].model_validate(self._json("GET", path, params=asked))  # type: ignore[valid-type]
            yield from page.items
            left = None if left is None else left - len(page.items)
            if not page.next_cursor:
                return
            asked["cursor"] = page.next_cursor
