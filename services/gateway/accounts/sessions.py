"""How does a session begin, go on and end? Login with throttling, rotating refresh tokens, logout."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Busy, Unauthenticated
from libs.common.logs import get_logger
from services.gateway.accounts.passwords import is_password
from services.gateway.accounts.tables import LoginFailure, RefreshToken, User
from services.gateway.accounts.tokens import issue_access_token, new_refresh_token, token_hash
from services.gateway.audit import audit
from services.gateway.database import Database, new_id, one_at_a_time, utcnow
from services.gateway.settings import GatewaySettings

log = get_logger("gateway.accounts")


class TooManyLogins(Busy):
    """Too many failed logins"""

    code = "too_many_logins"
    suggested_actions = ("Wait for the time in Retry-After, or ask an administrator for a new password.",)


@dataclass(frozen=True)
class Tokens:
    """What a client gets at login and at each refresh."""

    access_token: str
    refresh_token: str
    expires_in: int


def account_key(email: str) -> str:
    """How failed logins of an address are counted, whether there is such an account or not."""
    return hashlib.sha256(email.strip().lower().encode()).hexdigest()


async def login(database: Database, settings: GatewaySettings, email: str, password: str) -> Tokens:
    """Raises Unauthenticated for a wrong address or password, TooManyLogins after too many of them."""
    key = account_key(email)
    async with database.read() as session:
        await _check_throttle(session, settings, key)
        user = await session.scalar(select(User).where(User.email == email.strip().lower(), User.is_active))
    is_right = await is_password(user.password_hash if user else None, password)
    async with database.write() as session:
        # Again: of many guesses at once all were let in before the first had failed. Right and wrong are told the same.
        await one_at_a_time(session, "login", key)
        await _check_throttle(session, settings, key)
        if user is not None and is_right:
            await session.execute(delete(LoginFailure).where(LoginFailure.account == key))
            refresh = _add_token(session, settings, user.id, new_id("ses"))
            audit.record(session, user.id, "session.opened", user.id, kind="user")
        else:
            session.add(LoginFailure(account=key))
            if user is not None:
                audit.record(session, user.id, "session.refused", user.id, kind="user")
    if user is None or not is_right:
        raise Unauthenticated(
            "the e-mail address or the password is wrong",
            reason="wrong_password",
            actions=("Check both and try again.",),
        )
    return _tokens(settings, user.id, user.role, refresh)


async def refresh(database: Database, settings: GatewaySettings, token: str) -> Tokens:
    """The next pair of tokens. A refresh token that was used before ends the whole session: somebody has a copy."""
    now = utcnow()
    refused = ""
    async with database.write() as session:
        row = await session.get(RefreshToken, token_hash(token), with_for_update=True)
        user = await session.get(User, row.user_id) if row else None
        if row is None or user is None or not user.is_active:
            refused = "the refresh token is not known"
        elif row.revoked_at is not None:
            refused = "the session has ended"
        elif row.expires_at <= now:
            refused = "the refresh token has expired"
        elif row.used_at is not None:
            refused = "the refresh token was used before: the session is ended for safety"
            await _revoke(session, row.family)
            audit.record(session, user.id, "session.reuse_detected", user.id, kind="user", family=row.family)
            log.warning("session.reuse_detected", user=user.id)
        else:
            row.used_at = now
            fresh = _add_token(session, settings, user.id, row.family)
    # Raised outside the transaction, so that the revocation is kept.
    if refused or user is None:
        raise Unauthenticated(refused, reason="refresh_refused", actions=("Sign in again.",))
    return _tokens(settings, user.id, user.role, fresh)


async def logout(database: Database, user_id: str, token: str | None) -> None:
    """Ends the session of `token`, or all sessions of the user when there is none. Unknown tokens are no error."""
    async with database.write() as session:
        if token is None:
            await end_all(session, user_id)
        else:
            row = await session.get(RefreshToken, token_hash(token))
            if row is not None and row.user_id == user_id:
                await _revoke(session, row.family)
        audit.record(session, user_id, "session.closed", user_id, kind="user", all=token is None)


async def end_all(session: AsyncSession, user_id: str) -> None:
    """Ends all sessions of one account."""
    await session.execute(
        update(RefreshToken)
        .where(RefreshToken.user_id == user_id, RefreshToken.revoked_at.is_(None))
        .values(revoked_at=utcnow())
    )


async def sweep(database: Database, settings: GatewaySettings) -> None:
    """Forgets tokens that expired a day ago and failed logins that no longer count."""
    now = utcnow()
    async with database.write() as session:
        await session.execute(delete(RefreshToken).where(RefreshToken.expires_at < now - timedelta(days=1)))
        await session.execute(delete(LoginFailure).where(LoginFailure.at < now - settings.login_window))


async def _check_throttle(session: AsyncSession, settings: GatewaySettings, key: str) -> None:
    since = utcnow() - settings.login_window
    statement = select(func.count(), func.min(LoginFailure.at)).where(
        LoginFailure.account == key, LoginFailure.at > since
    )
    count, oldest = (await session.execute(statement)).one()
    if count >= settings.login_attempts:
        wait = (oldest + settings.login_window - utcnow()).total_seconds()
        raise TooManyLogins(f"{count} logins of this account failed", retry_after=max(1.0, wait))


async def _revoke(session: AsyncSession, family: str) -> None:
    await session.execute(
        update(RefreshToken)
        .where(RefreshToken.family == family, RefreshToken.revoked_at.is_(None))
        .values(revoked_at=utcnow())
    )


def _add_token(session: AsyncSession, settings: GatewaySettings, user_id: str, family: str) -> str:
    token = new_refresh_token()
    expires = utcnow() + settings.refresh_token_lifetime
    session.add(RefreshToken(token_hash=token_hash(token), user_id=user_id, family=family, expires_at=expires))
    return token


def _tokens(settings: GatewaySettings, user_id: str, role: str, refresh_token: str) -> Tokens:
    return Tokens(
        access_token=issue_access_token(settings, user_id, role),
        refresh_token=refresh_token,
        expires_in=int(settings.access_token_lifetime.total_seconds()),
    )
