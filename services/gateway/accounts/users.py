"""Which accounts are there, and how do they change?"""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Conflict, NotFound
from services.gateway.accounts.keys import revoke_all
from services.gateway.accounts.passwords import check_password, hash_password
from services.gateway.accounts.sessions import end_all
from services.gateway.accounts.tables import Role, User
from services.gateway.audit import audit
from services.gateway.database import Database, one_at_a_time, utcnow


class EmailTaken(Conflict):
    """There is an account with this address"""

    code = "email_taken"
    suggested_actions = ("Use another address, or change the account that is there.",)


class LastAdmin(Conflict):
    """The last administrator must stay"""

    code = "last_admin"
    suggested_actions = ("Make somebody else an administrator first.",)


async def create(
    database: Database,
    *,
    user_id: str,
    actor: str,
    email: str,
    name: str,
    role: Role,
    password: str,
    min_length: int,
) -> User:
    """A new account; raises EmailTaken, and InvalidInput for a weak password."""
    check_password(password, min_length)
    hashed = await hash_password(password)
    try:
        async with database.write() as session:
            made = await session.get(User, user_id)
            if made is not None:
                return made
            user = User(id=user_id, email=email.strip().lower(), name=name, role=role.value, password_hash=hashed)
            session.add(user)
            await session.flush()
            audit.record(session, actor, "user.created", user.id, role=role.value)
    except IntegrityError:
        raise EmailTaken(f"{email} has an account", field="email") from None
    return user


async def listing(database: Database, *, after: str | None, limit: int) -> list[User]:
    """Up to `limit` accounts in order of their creation."""
    statement = select(User).where(User.deleted_at.is_(None)).order_by(User.id).limit(limit)
    if after is not None:
        statement = statement.where(User.id > after)
    async with database.read() as session:
        return list(await session.scalars(statement))


async def change(
    database: Database,
    user_id: str,
    *,
    actor: str,
    name: str | None,
    role: Role | None,
    is_active: bool | None,
    password: str | None,
    min_length: int,
) -> User:
    """The account with what is not None changed. A new password or role, and a lock, end its sessions and keys."""
    hashed = None
    if password is not None:
        check_password(password, min_length)
        hashed = await hash_password(password)
    async with database.write() as session:
        user = await session.get(User, user_id, with_for_update=True)
        if user is None or user.deleted_at is not None:
            raise NotFound(f"there is no account {user_id!r}")
        changed: dict[str, Any] = {}
        if name is not None:
            user.name = changed["name"] = name
        if role is not None:
            user.role = changed["role"] = role.value
        if is_active is not None:
            user.is_active = changed["is_active"] = is_active
        if hashed is not None:
            user.password_hash = hashed
            changed["password_changed"] = True
        await session.flush()
        await _check_an_admin_remains(session)
        if {"role", "password_changed"} & changed.keys() or is_active is False:
            await end_all(session, user_id)
            await revoke_all(session, user_id)
        audit.record(session, actor, "user.changed", user_id, **changed)
    return user


async def remove(database: Database, user_id: str, *, actor: str) -> None:
    """Ends an account for good: nobody can sign in, its address is free again, what it made keeps its owner's id."""
    async with database.write() as session:
        user = await session.get(User, user_id, with_for_update=True)
        if user is None or user.deleted_at is not None:
            raise NotFound(f"there is no account {user_id!r}")
        user.is_active = False
        user.deleted_at = utcnow()
        user.email = f"{user.id}@deleted.invalid"
        user.name = ""
        user.password_hash = ""
        await session.flush()
        await _check_an_admin_remains(session)
        await end_all(session, user_id)
        await revoke_all(session, user_id)
        audit.record(session, actor, "user.deleted", user_id)


async def _check_an_admin_remains(session: AsyncSession) -> None:
    await one_at_a_time(session, "administrators")  # two who leave at once would each count on the other
    admins = await session.scalar(select(func.count()).where(User.role == Role.admin.value, User.is_active))
    if not admins:
        raise LastAdmin("this is the only active administrator")
