"""Who is asking? The dependency of every route that is not public, and the rule of ownership."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPBearer
from sqlalchemy import ColumnElement, bindparam, select, true
from sqlalchemy.orm import InstrumentedAttribute

from libs.common.errors import Forbidden, Unauthenticated
from services.gateway.accounts import keys
from services.gateway.accounts.keys import Scope
from services.gateway.accounts.tables import Role, User
from services.gateway.accounts.tokens import read_access_token
from services.gateway.parts import Parts, parts_of

_SENT = "The access_token of POST /api/v1/auth/login, or a key of POST /api/v1/auth/tokens"
# Declares the scheme in the OpenAPI document; `authenticate` reads the header, and refuses with a problem document.
_bearer = HTTPBearer(auto_error=False, scheme_name="token", description=_SENT)
# Looked up at every request: whoever was deactivated or got another role has it at once.
_ACTIVE = select(User).where(User.id == bindparam("user_id"), User.is_active)


@dataclass(frozen=True)
class Caller:
    """The account behind a request. `scopes`: of the key that was sent; None for a person who signed in."""

    id: str
    email: str
    name: str
    role: Role
    scopes: frozenset[Scope] | None = None

    @property
    def is_admin(self) -> bool:
        return self.role is Role.admin

    def may_see(self, owner_id: str) -> bool:
        """What belongs to somebody else does not exist for anyone but an administrator."""
        return self.is_admin or self.id == owner_id

    def sees(self, owner: InstrumentedAttribute[str]) -> ColumnElement[bool]:
        """The same rule as a condition of a query, e.g. `select(Dataset).where(caller.sees(Dataset.owner_id))`."""
        return true() if self.is_admin else owner == self.id


async def caller_of(parts: Parts, token: str) -> Caller:
    """The active account that an access token or a key names; raises Unauthenticated otherwise.

    A key is never an administrator's: it sees what its account owns.
    """
    if token.startswith(keys.PREFIX):
        user_id, scopes = await keys.owner_of(parts.database, token)
        account = await active_account(parts, user_id)
        role = Role.creator if account.is_admin else account.role
        return replace(account, role=role, scopes=scopes)
    return await active_account(parts, read_access_token(parts.settings, token))


async def active_account(parts: Parts, user_id: str) -> Caller:
    """The account with this id; raises Unauthenticated when it is gone or was deactivated."""
    user = await parts.database.look_up(_ACTIVE, user_id=user_id)
    if user is None:
        raise Unauthenticated("the account of this token does not exist any more", reason="account_gone")
    return Caller(id=user.id, email=user.email, name=user.name, role=Role(user.role))


async def authenticate(request: Request) -> Caller:
    """The caller of a request, found once per request; raises Unauthenticated."""
    known: Caller | None = getattr(request.state, "caller", None)
    if known is not None:
        return known
    header = request.headers.get("authorization", "")
    scheme, _, token = header.partition(" ")
    if not header:
        raise Unauthenticated("this address needs an access token", reason="token_missing")
    if scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the Authorization header must read `Bearer <token>`", reason="token_invalid")
    caller = await caller_of(parts_of(request), token.strip())
    request.state.caller = caller
    return caller


async def _current(request: Request, _scheme: Annotated[object, Depends(_bearer)]) -> Caller:
    return await authenticate(request)


CurrentUser = Annotated[Caller, Depends(_current)]


async def _creator(caller: CurrentUser) -> Caller:
    if caller.role is Role.viewer:
        raise Forbidden("viewers may look, and not make or change anything")
    return caller


async def _admin(caller: CurrentUser) -> Caller:
    if not caller.is_admin:
        raise Forbidden("only administrators may do this")
    return caller


Creator = Annotated[Caller, Depends(_creator)]
Admin = Annotated[Caller, Depends(_admin)]
