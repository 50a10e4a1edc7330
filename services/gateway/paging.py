"""How are long lists read? Page by page, by the id of the last item, so that new items shift nothing.

A cursor is that id with a code that only this installation makes, for one list of one account (decision 0111): any
other is refused, instead of being answered with a page that was not asked for.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol, TypeVar

from fastapi import Depends, Query, Request
from pydantic import Field

from libs.common.errors import InvalidInput
from services.gateway.accounts.current import CurrentUser
from services.gateway.parts import SharedParts

CURSOR_LENGTH = 80
_CODE_LENGTH = 24  # 96 bits, in hex

NextCursor = Annotated[str | None, Field(description="`cursor` of the next page; null on the last one")]


class HasId(Protocol):
    @property
    def id(self) -> object: ...


Item = TypeVar("Item", bound=HasId)


@dataclass(frozen=True)
class Paging:
    """One page of one account's list. `after` is the id of the last item of the page before, None for the first."""

    after: str | None
    count: int
    _key: bytes
    _list: str

    @property
    def asked(self) -> int:
        """How many items to look for: one more than the page has tells whether another follows."""
        return self.count + 1

    def cut(self, found: Sequence[Item]) -> tuple[Sequence[Item], str | None]:
        """The page out of at most `asked` items, and the cursor of the next one if there is one."""
        if len(found) <= self.count:
            return found, None
        last = str(found[self.count - 1].id)
        return found[: self.count], f"{last}_{_code(self._key, self._list, last)}"


def _code(key: bytes, list_: str, last: str) -> str:
    return hmac.new(key, f"cursor\0{list_}\0{last}".encode(), hashlib.sha256).hexdigest()[:_CODE_LENGTH]


async def _paging(
    request: Request,
    caller: CurrentUser,
    parts: SharedParts,
    cursor: Annotated[
        str | None, Query(max_length=CURSOR_LENGTH, description="`next_cursor` of the page before, in the same list")
    ] = None,
    limit: Annotated[
        int | None, Query(ge=1, le=200, description="Items per page; 50 unless configured otherwise")
    ] = None,
) -> Paging:
    key = parts.settings.jwt_secret.get_secret_value().encode()
    list_ = f"{caller.id}\0{request.url.path}"
    after = None
    if cursor is not None:
        after, _, code = cursor.rpartition("_")
        if not hmac.compare_digest(code.encode(), _code(key, list_, after).encode()):
            raise InvalidInput(
                "cursor: this is no `next_cursor` of this list",
                field="cursor",
                actions=("Begin with the first page, without a cursor.",),
            )
    return Paging(after, limit or parts.settings.page_size, key, list_)


Page = Annotated[Paging, Depends(_paging)]
