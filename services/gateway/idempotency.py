"""How is a creating request made safe to repeat? Its answer is kept under the caller's `Idempotency-Key`.

The same key with the same request gives the stored answer; with another request, 422; while the first is still at
work, 409. A streamed upload is never held: its fingerprint is taken while it passes through (decision 0112). Only
answers of success are kept: a refused request created nothing, and may be corrected and sent again under its key. One
that was cut off may have created something: repeated, it finds it under the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import ColumnElement, ForeignKey, Index, LargeBinary, String, delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Mapped, mapped_column
from starlette.exceptions import HTTPException

from libs.common.errors import Conflict, InvalidInput, PlatformError
from services.gateway.accounts.current import Caller
from services.gateway.body_print import BodyPrint
from services.gateway.database import Base, Database, new_id, new_ulid, utcnow
from services.gateway.settings import GatewaySettings

KEY_LENGTH = 200
_HALF = 32  # of a fingerprint: a streamed request has 128 bits for its address, and 128 for its body
REPLAYED = "Idempotent-Replayed"
_KEPT_HEADERS = ("content-type", "location", "etag")


class IdempotencyKeyReused(InvalidInput):
    """This Idempotency-Key was used for another request"""

    code = "idempotency_key_reused"
    suggested_actions = ("Use a new key for a new request.",)


class StillAtWork(Conflict):
    """The same request is still being worked on"""

    code = "request_in_progress"
    retryable = True
    suggested_actions = ("Wait, then send the request again with the same key.",)


class KeptAnswer(Base):
    """A creating request of one account under its key; `status` is None until it was answered.

    `seed` is the id that the created object gets, so that a request that was killed between its transaction and this
    row's answer finds, when it is repeated, what it made.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (Index("ix_idempotency_keys_created_at", "created_at"),)

    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(KEY_LENGTH), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    seed: Mapped[str] = mapped_column(String(40))
    holder: Mapped[str] = mapped_column(String(40))
    locked_until: Mapped[datetime]
    created_at: Mapped[datetime]
    status: Mapped[int | None]
    headers: Mapped[dict[str, str]] = mapped_column(default=dict)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)


@dataclass(frozen=True)
class Before:
    """What the first request under this key was answered. `body_print` is that of its streamed body, "" without one."""

    answer: Response
    body_print: str


@dataclass(frozen=True)
class Claim:
    """This request is the one that does the work."""

    key: str
    holder: str
    seed: str


def reserved_id(request: Request, prefix: str) -> str:
    """The id for the object that this request creates: the same one again when a killed request is repeated."""
    claim: Claim | None = getattr(request.state, "claim", None)
    return f"{prefix}_{claim.seed}" if claim else new_id(prefix)


def fingerprint(method: str, path: str, query: str, body: bytes | None) -> str:
    """What makes two requests the same; of a streamed one, `body` None, what is known before its body came."""
    digest = hashlib.sha256()
    for part in (method.encode(), path.encode(), query.encode(), b"-" if body is None else b"+" + body):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest() if body is not None else digest.hexdigest()[:_HALF]


async def once(
    request: Request,
    caller: Caller,
    key: str,
    print_: str,
    handler: Callable[[Request], Awaitable[Response]],
    database: Database,
    settings: GatewaySettings,
    lock: timedelta,
    body: BodyPrint | None = None,
) -> Response:
    """The answer to a creating request: done now, or the one that was given before. `body` for a streamed one.

    Raises IdempotencyKeyReused, StillAtWork, and what `handler` raises.
    """
    if not 1 <= len(key) <= KEY_LENGTH or not key.isprintable():
        raise InvalidInput(f"Idempotency-Key must have 1 to {KEY_LENGTH} printable characters", field="Idempotency-Key")
    claim = await _claim(database, caller.id, key, print_, settings, lock)
    if isinstance(claim, Before):
        if body is not None and claim.body_print:
            sent = await body.read(request, settings.upload_limit, settings.upload_idle.total_seconds())
            if sent[:_HALF] != claim.body_print:
                raise _reused()
        return claim.answer
    request.state.claim = claim
    try:
        response = await handler(request if body is None else body.watch(request))
        if 200 <= response.status_code < 300:
            whole = print_ + body.hexdigest()[:_HALF] if body is not None and body.is_whole else print_
            await _keep(database, caller.id, claim, response, whole)
        else:
            await _forget(database, caller.id, claim)
    except (PlatformError, RequestValidationError, HTTPException) as error:
        if isinstance(error, PlatformError) and error.status >= 500:
            await _let_go(database, caller.id, claim)
        else:
            await _forget(database, caller.id, claim)
        raise
    except BaseException:
        await _let_go(database, caller.id, claim)
        raise
    return response


async def _claim(
    database: Database, user_id: str, key: str, print_: str, settings: GatewaySettings, lock: timedelta
) -> Claim | Before:
    now = utcnow()
    claim = Claim(key=key, holder=new_ulid(), seed=new_ulid())
    try:
        async with database.write() as session:
            row = await session.get(KeptAnswer, (user_id, key), with_for_update=True)
            if row is not None and row.created_at < now - settings.idempotency_lifetime:
                await session.delete(row)
                await session.flush()
                row = None
            if row is None:
                session.add(
                    KeptAnswer(
                        user_id=user_id,
                        key=key,
                        fingerprint=print_,
                        seed=claim.seed,
                        holder=claim.holder,
                        locked_until=now + lock,
                        created_at=now,
                    )
                )
                return claim
            if row.fingerprint[: len(print_)] != print_:
                raise _reused()
            if row.status is not None:
                answer = Response(row.body or b"", row.status, headers=row.headers | {REPLAYED: "true"})
                return Before(answer, row.fingerprint[len(print_) :])
            if row.locked_until > now:
                raise StillAtWork("the first request with this key has not been answered yet", retry_after=1)
            # Whoever held it was killed: the work is done again, under the id that it was to have.
            row.holder = claim.holder
            row.locked_until = now + lock
            return Claim(key=key, holder=claim.holder, seed=row.seed)
    except IntegrityError:
        raise StillAtWork("the first request with this key has not been answered yet", retry_after=1) from None


def _reused() -> IdempotencyKeyReused:
    return IdempotencyKeyReused("the key belongs to a request with other content", field="Idempotency-Key")


def _mine(user_id: str, claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (
        KeptAnswer.user_id == user_id,
        KeptAnswer.key == claim.key,
        KeptAnswer.holder == claim.holder,
        KeptAnswer.status.is_(None),
    )


async def _forget(database: Database, user_id: str, claim: Claim) -> None:
    """The request was refused and made nothing: its key is free."""
    async with database.write() as session:
        await session.execute(delete(KeptAnswer).where(*_mine(user_id, claim)))


async def _let_go(database: Database, user_id: str, claim: Claim) -> None:
    """The request was cut off, perhaps after it made something: when it is repeated, under the same id."""
    async with database.write() as session:
        await session.execute(update(KeptAnswer).where(*_mine(user_id, claim)).values(locked_until=utcnow()))


async def _keep(database: Database, user_id: str, claim: Claim, response: Response, fingerprint_: str) -> None:
    headers = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
    async with database.write() as session:
        await session.execute(
            update(KeptAnswer)
            .where(KeptAnswer.user_id == user_id, KeptAnswer.key == claim.key, KeptAnswer.holder == claim.holder)
            .values(status=response.status_code, headers=headers, body=bytes(response.body), fingerprint=fingerprint_)
        )


async def sweep(database: Database, settings: GatewaySettings) -> int:
    """Forgets answers that are older than their lifetime; returns how many."""
    async with database.write() as session:
        gone = await session.execute(
            delete(KeptAnswer).where(KeptAnswer.created_at < utcnow() - settings.idempotency_lifetime)
        )
        return int(getattr(gone, "rowcount", 0))
