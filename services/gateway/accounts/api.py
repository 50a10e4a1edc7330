"""What can be asked about accounts?"""

from __future__ import annotations

from datetime import timedelta

from fastapi import Request, Response

from services.gateway.accounts import keys, sessions, users
from services.gateway.accounts.current import Admin, Creator, CurrentUser
from services.gateway.accounts.schemas import (
    CreatedKey,
    KeyPage,
    KeyView,
    Login,
    Logout,
    Me,
    NewKey,
    NewUser,
    Refresh,
    TokenPair,
    UserChange,
    UserPage,
    UserView,
)
from services.gateway.idempotency import reserved_id
from services.gateway.paging import Page
from services.gateway.parts import SharedParts
from services.gateway.routing import creates, problems, router

public_auth_router = router("/auth", "accounts", public=True)
auth_router = router("/auth", "accounts")
admin_router = router("/admin/users", "administration")


@public_auth_router.post("/login", operation_id="login", summary="Sign in", responses=problems(401, 429))
async def login(body: Login, parts: SharedParts) -> TokenPair:
    """With e-mail address and password. The access token is short-lived; the refresh token brings the next pair."""
    tokens = await sessions.login(parts.database, parts.settings, body.email, body.password)
    return TokenPair(**vars(tokens))


@public_auth_router.post("/refresh", operation_id="refresh_token", summary="Renew the tokens", responses=problems(401))
async def refresh(body: Refresh, parts: SharedParts) -> TokenPair:
    """The next pair of tokens; a refresh token works once, a second use ends the session."""
    tokens = await sessions.refresh(parts.database, parts.settings, body.refresh_token)
    return TokenPair(**vars(tokens))


@auth_router.post("/logout", operation_id="logout", summary="Sign out", status_code=204)
async def logout(caller: CurrentUser, parts: SharedParts, body: Logout | None = None) -> Response:
    """End this session, or all of the account's when no refresh token is given."""
    await sessions.logout(parts.database, caller.id, body.refresh_token if body else None)
    return Response(status_code=204)


@auth_router.get("/me", operation_id="me", summary="Whose token this is")
async def me(caller: CurrentUser) -> Me:
    """Your account, with its role: viewers look, creators make things of their own, administrators see everything."""
    return Me(id=caller.id, email=caller.email, name=caller.name, role=caller.role)


@auth_router.post(
    "/tokens",
    operation_id="create_token",
    summary="Make a key for a program",
    status_code=201,
    responses=problems(403, 409),
)
async def create_token(body: NewKey, caller: Creator, parts: SharedParts) -> CreatedKey:
    """The secret is in this answer and nowhere else; only its hash is kept. Send it as a token is sent.

    A key sees and makes what is its account's, in its scopes; it never administrates, and makes no other keys. A new
    password, another role, or a lock of the account ends all of its keys.
    """
    lifetime = timedelta(days=body.lifetime_days) if body.lifetime_days is not None else None
    most = parts.settings.access_keys_per_user
    key, secret = await keys.create(parts.database, caller.id, body.name, body.scopes, lifetime, most)
    return CreatedKey(**KeyView.of(key).model_dump(), token=secret)


@auth_router.get("/tokens", operation_id="list_tokens", summary="Your keys, newest first", responses=problems(403))
async def list_tokens(caller: CurrentUser, parts: SharedParts, paging: Page) -> KeyPage:
    """Also those that were taken back or have expired; no secrets."""
    found = await keys.listing(parts.database, caller.id, before=paging.after, limit=paging.asked)
    items, following = paging.cut(found)
    return KeyPage(items=[KeyView.of(key) for key in items], next_cursor=following)


@auth_router.delete(
    "/tokens/{token_id}",
    operation_id="revoke_token",
    summary="Take a key back",
    status_code=204,
    responses=problems(403, 404),
)
async def revoke_token(token_id: str, caller: CurrentUser, parts: SharedParts) -> Response:
    """It stops to work at once, and stays in the list."""
    await keys.revoke(parts.database, caller.id, token_id)
    return Response(status_code=204)


@admin_router.post(
    "",
    operation_id="create_user",
    summary="Add an account",
    status_code=201,
    dependencies=[creates],
    responses=problems(403, 409),
)
async def create_user(body: NewUser, caller: Admin, parts: SharedParts, request: Request) -> UserView:
    """The person signs in with this e-mail address and password; an account without a role is a creator."""
    user = await users.create(
        parts.database,
        user_id=reserved_id(request, "usr"),
        actor=caller.id,
        email=body.email,
        name=body.name,
        role=body.role,
        password=body.password,
        min_length=parts.settings.password_min_length,
    )
    return UserView.model_validate(user)


@admin_router.get("", operation_id="list_users", summary="All accounts", responses=problems(403))
async def list_users(_: Admin, parts: SharedParts, paging: Page) -> UserPage:
    """Oldest first, page by page."""
    items, following = paging.cut(await users.listing(parts.database, after=paging.after, limit=paging.asked))
    return UserPage(items=[UserView.model_validate(user) for user in items], next_cursor=following)


@admin_router.patch(
    "/{user_id}", operation_id="change_user", summary="Change or lock an account", responses=problems(403, 404, 409)
)
async def change_user(user_id: str, body: UserChange, caller: Admin, parts: SharedParts) -> UserView:
    """Name, role, password, or whether it may sign in; what is left out stays."""
    user = await users.change(
        parts.database,
        user_id,
        actor=caller.id,
        name=body.name,
        role=body.role,
        is_active=body.is_active,
        password=body.password,
        min_length=parts.settings.password_min_length,
    )
    return UserView.model_validate(user)


@admin_router.delete(
    "/{user_id}",
    operation_id="delete_user",
    summary="End an account",
    status_code=204,
    responses=problems(403, 404, 409),
)
async def delete_user(user_id: str, caller: Admin, parts: SharedParts) -> Response:
    """What it made stays, and only administrators see it from then on."""
    await users.remove(parts.database, user_id, actor=caller.id)
    return Response(status_code=204)
