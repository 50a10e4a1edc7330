"""How does a change get into the audit trail?"""

from __future__ import annotations

from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.logs import request_id
from services.gateway.audit.tables import AuditEntry

SYSTEM = "system"


def record(
    session: AsyncSession, actor: str, action: str, object_id: str, *, kind: str | None = None, **details: Any
) -> None:
    """Adds one entry in the transaction of the change itself, so that neither exists without the other.

    `actor` is a user's id or `SYSTEM`; `action` is `<kind>.<verb in the past tense>`, such as `dataset.created`;
    `details` hold what changed, never passwords, tokens or sound.
    """
    session.add(
        AuditEntry(
            actor_id=actor,
            action=action,
            object_kind=kind or action.partition(".")[0],
            object_id=object_id,
            request_id=request_id.get()[:80],
            details=details,
        )
    )
