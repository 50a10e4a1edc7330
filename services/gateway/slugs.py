"""How does a thing get its folder's name? Once, unique in the installation, with a suffix when it is taken."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.errors import Conflict
from libs.common.paths import slugify, with_suffix
from services.gateway.database import Base

Row = TypeVar("Row", bound=Base)
_TRIES = 12


async def insert(
    session: AsyncSession, make: Callable[[str], Row], column: InstrumentedAttribute[str], name: str, fallback: str
) -> tuple[Row, bool]:
    """The row that `make(slug)` builds, stored under a free slug for `name`, and whether it got a suffix.

    A slug is taken for good, also after its thing was deleted: what still lies in a folder never becomes a stranger's.
    """
    wanted = slugify(name, fallback)
    is_reserved = wanted != slugify(name, fallback)  # only a reserved name gets a random suffix there
    slug = wanted
    for _ in range(_TRIES):
        if await session.scalar(select(column).where(column == slug)) is None:
            row = make(slug)
            try:
                async with session.begin_nested():
                    session.add(row)
            except IntegrityError:
                pass  # somebody was faster, on another replica
            else:
                return row, is_reserved or slug != wanted
        slug = with_suffix(wanted)
    raise Conflict(f"no free folder name was found for {name!r}", actions=("Choose another name.",))
