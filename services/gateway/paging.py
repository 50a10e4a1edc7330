"""How are long lists read? Page by page, by the id of the last item, so that new items shift nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Protocol, TypeVar

from fastapi import Query
from pydantic import Field

Cursor = Annotated[
    str | None, Query(max_length=64, pattern=r"^[A-Za-z0-9_]+$", description="`next_cursor` of the page before")
]
NextCursor = Annotated[str | None, Field(description="`cursor` of the next page; null on the last one")]
Limit = Annotated[int | None, Query(ge=1, le=200, description="Items per page; 50 unless configured otherwise")]


class HasId(Protocol):
    @property
    def id(self) -> object: ...


Item = TypeVar("Item", bound=HasId)


def page(found: Sequence[Item], count: int) -> tuple[Sequence[Item], str | None]:
    """The first `count` of `count + 1` items that were asked for, and the cursor of the next page if there is one."""
    if len(found) <= count:
        return found, None
    return found[:count], str(found[count - 1].id)
