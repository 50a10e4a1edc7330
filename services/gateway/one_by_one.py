"""How is something done for many rows? Page by page, and a row that always fails holds no other up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Select
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.errors import PlatformError
from libs.common.logs import get_logger
from services.gateway.database import Database

log = get_logger("gateway.rows")

PAGE = 200


async def one_by_one(
    database: Database,
    statement: Select[*tuple[Any, ...]],
    key: InstrumentedAttribute[str],
    work: Callable[..., Awaitable[None]],
    page_size: int = PAGE,
) -> int:
    """`work(*row)` for every row of `statement` along `key`, its first column; returns how many succeeded.

    An error is logged; the row comes again when the caller does.
    """
    succeeded, after = 0, ""
    while True:
        async with database.read() as session:
            page = (await session.execute(statement.where(key > after).order_by(key).limit(page_size))).all()
        succeeded += await each(page, work)
        if len(page) < page_size:
            return succeeded
        after = page[-1][0]


async def each(rows: Iterable[Sequence[Any]], work: Callable[..., Awaitable[None]]) -> int:
    """`work(*row)` for every row, known by its first item; returns how many succeeded. Errors are logged."""
    return sum([await _succeeds(work, row) for row in rows])


async def _succeeds(work: Callable[..., Awaitable[None]], row: Any) -> bool:
    try:
        await work(*row)
    except PlatformError as error:
        log.warning("row.postponed", row=row[0], code=error.code, detail=error.detail)
    except Exception as error:  # nobody foresaw it; the other rows are not to blame
        log.error("row.failed", row=row[0], error=f"{type(error).__name__}: {error}", exc_info=error)
    else:
        return True
    return False
