"""With what do programs sign in? With keys of an account that a person makes, sees in a list, and takes back.

A key is random and shown once; its hash is kept. It acts for its account in its scopes, never as an administrator, and
makes no other keys: whoever finds one gets no further with it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ForeignKey, Index, String, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from libs.common.errors import Conflict, NotFound, Unauthenticated
from services.gateway.audit import audit
from services.gateway.database import Base, Database, new_id, one_at_a_time, utcnow
from services.gateway.text import is_key

PREFIX = "vwk_"
SHOWN = 12
"""Characters of a key that its owner sees later on, to tell it from others."""
USED_EVERY = timedelta(minutes=1)
"""How old the time of the last use may be: a busy program is not a write for each request."""


class Scope(StrEnum):
    """What a key is good for: `look` at what its account has, `use` voices, `make` and change everything of its own."""

    look = "look"
    use = "use"
    make = "make"


class AccessKey(Base):
    """A key of an account. One that was taken back or has expired stays in the list."""

    __tablename__ = "access_keys"
    __table_args__ = (Index("ix_access_keys_user_id", "user_id"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True, default=lambda: new_id("key"))
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(String(200))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    begins_with: Mapped[str] = mapped_column(String(20))
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime] = mapped_column(default=utcnow)
    expires_at: Mapped[datetime | None]
    used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


_BY_HASH = select(AccessKey).where(AccessKey.hash == bindparam("hash"))


async def create(
    database: Database, user_id: str, name: str, scopes: Iterable[Scope], lifetime: timedelta | None, most: int
) -> tuple[AccessKey, str]:
    """A new key of the account, and the secret, which nobody can have a second time.

    Raises Conflict when the account has `most` keys that work.
    """
    secret = PREFIX + secrets.token_urlsafe(32)
    now = utcnow()
    async with database.write() as session:
        await one_at_a_time(session, "keys", user_id)
        working = select(func.count()).where(
            AccessKey.user_id == user_id,
            AccessKey.revoked_at.is_(None),
            AccessKey.expires_at.is_(None) | (AccessKey.expires_at > now),
        )
        if (await session.scalar(working) or 0) >= most:
            raise Conflict(f"the account has {most} keys, which is the limit", actions=("Take back one of them.",))
        key = AccessKey(
            user_id=user_id,
            name=name,
            hash=_hash(secret),
            begins_with=secret[:SHOWN],
            scopes=sorted({scope.value for scope in scopes}),
            created_at=now,
            expires_at=now + lifetime if lifetime is not None else None,
        )
        session.add(key)
        await session.flush()
        audit.record(session, user_id, "key.created", key.id, name=name, scopes=key.scopes)
    return key, secret


async def listing(database: Database, user_id: str, *, before: str | None, limit: int) -> list[AccessKey]:
    """Up to `limit` keys of the account, newest first."""
    statement = select(AccessKey).where(AccessKey.user_id == user_id).order_by(AccessKey.id.desc()).limit(limit)
    if before is not None:
        statement = statement.where(AccessKey.id < before)
    async with database.read() as session:
        return list(await session.scalars(statement))


async def revoke(database: Database, user_id: str, key_id: str) -> None:
    """Takes a key of the account back; twice is as once. Raises NotFound, also for another account's."""
    async with database.write() as session:
        key = await session.get(AccessKey, key_id, with_for_update=True) if is_key(key_id) else None
        if key is None or key.user_id != user_id:
            raise NotFound(f"there is no key {key_id[:80]!r}", actions=("List yours: GET /api/v1/auth/tokens.",))
        if key.revoked_at is None:
            key.revoked_at = utcnow()
            audit.record(session, user_id, "key.revoked", key.id)


async def revoke_all(session: AsyncSession, user_id: str) -> None:
    """Takes back all keys of an account: somebody else may have made one of them."""
    own = (AccessKey.user_id == user_id, AccessKey.revoked_at.is_(None))
    await session.execute(update(AccessKey).where(*own).values(revoked_at=utcnow()))


async def owner_of(database: Database, secret: str) -> tuple[str, frozenset[Scope]]:
    """The account and the scopes of a key. Raises Unauthenticated for one that is unknown, taken back or expired."""
    key = await database.look_up(_BY_HASH, hash=_hash(secret))
    now = utcnow()
    if key is None:
        raise Unauthenticated("the key is not one of this installation", reason="token_invalid")
    if key.revoked_at is not None:
        raise Unauthenticated("the key was taken back", reason="key_revoked", actions=_ANOTHER)
    if key.expires_at is not None and key.expires_at <= now:
        raise Unauthenticated("the key has expired", reason="token_expired", actions=_ANOTHER)
    if key.used_at is None or now - key.used_at > USED_EVERY:
        async with database.write() as session:
            await session.execute(update(AccessKey).where(AccessKey.id == key.id).values(used_at=now))
    return key.user_id, frozenset(Scope(scope) for scope in key.scopes)


_ANOTHER = ("Make another one: sign in, then POST /api/v1/auth/tokens.",)


def _hash(secret: str) -> str:
    """It is long enough that a plain hash cannot be searched."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
