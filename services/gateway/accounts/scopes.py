"""What may a key be used for? Told by the address of a route and its method, so that a new route is never left open.

GET                                       look      all else below the areas of USING       use
accounts, keys and administration         nobody    everything else                         make
"""

from __future__ import annotations

from libs.common.errors import Forbidden
from services.gateway.accounts.current import Caller
from services.gateway.accounts.keys import Scope

USING = ("/api/v1/synthesize", "/api/v1/convert", "/api/v1/ws", "/v1/audio")
PERSONAL = ("/api/v1/auth", "/api/v1/admin", "/api/v1/ws/tickets")
"""Tickets too: a program sends its key with the WebSocket, and a ticket would forget the scopes."""
WHO_AM_I = "/api/v1/auth/me"


def needed(method: str, path: str) -> Scope | None:
    """The scope that a request needs; None when no key may send it. `path` is the route's, such as `/api/v1/models`."""
    if path == WHO_AM_I:
        return Scope.look
    if _is_below(path, PERSONAL):
        return None
    if method in ("GET", "HEAD"):
        return Scope.look
    return Scope.use if _is_below(path, USING) else Scope.make


def check(caller: Caller, method: str, path: str) -> None:
    """Raises Forbidden when the caller came with a key that is not good for this."""
    if caller.scopes is None:
        return
    scope = needed(method, path)
    if scope is None:
        raise Forbidden("no key is good for accounts, keys and administration", actions=("Sign in as a person.",))
    if scope not in caller.scopes:
        raise Forbidden(
            f"this key lacks the scope `{scope}`", actions=(f"Make a key with the scope `{scope}`.",), scope=scope.value
        )


def _is_below(path: str, areas: tuple[str, ...]) -> bool:
    return any(path == area or path.startswith(f"{area}/") for area in areas)
