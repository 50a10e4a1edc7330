"""How does somebody rename or describe what is theirs? The slug stays; nobody undoes what they have not seen."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncSession

from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import utcnow
from services.gateway.datasets.tables import Dataset
from services.gateway.etags import check_match, etag
from services.gateway.voices.tables import Voice


def describe(
    session: AsyncSession,
    caller: Caller,
    row: Dataset | Voice,
    noun: str,
    *,
    name: str | None,
    description: str | None,
    if_match: str | None,
) -> None:
    """Changes what is given and differs; `row` is locked. Raises PreconditionFailed when `if_match` is outdated."""
    check_match(if_match, etag(row.id, row.version))
    given = {"name": name, "description": description}
    changed = {field: value for field, value in given.items() if value is not None and value != getattr(row, field)}
    if not changed:
        return
    for field, value in changed.items():
        setattr(row, field, value)
    row.version += 1
    row.updated_at = utcnow()
    audit.record(session, caller.id, f"{noun}.changed", row.id, fields=sorted(changed))
