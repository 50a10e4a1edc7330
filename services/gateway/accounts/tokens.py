"""What does a token say? Access tokens are short-lived JWTs; refresh tokens are random and kept as hashes."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime

import jwt

from libs.common.errors import Unauthenticated
from services.gateway.database import new_ulid, utcnow
from services.gateway.settings import GatewaySettings

ISSUER = "voicewright"
_ALGORITHM = "HS256"


def issue_access_token(settings: GatewaySettings, user_id: str, role: str, now: datetime | None = None) -> str:
    """A signed token that names the user. The role inside informs clients; the gateway reads it from its database."""
    issued = now or utcnow()
    claims = {
        "iss": ISSUER,
        "sub": user_id,
        "role": role,
        "typ": "access",
        "iat": issued,
        "exp": issued + settings.access_token_lifetime,
        "jti": new_ulid(),
    }
    return jwt.encode(claims, settings.jwt_secret.get_secret_value(), algorithm=_ALGORITHM)


def read_access_token(settings: GatewaySettings, token: str) -> str:
    """The id of the user whom `token` names; raises Unauthenticated for one that is expired, foreign or garbled."""
    try:
        claims = jwt.decode(
            token,
            settings.jwt_secret.get_secret_value(),
            algorithms=[_ALGORITHM],
            issuer=ISSUER,
            options={"require": ["exp", "iat", "sub", "iss"]},
        )
    except jwt.ExpiredSignatureError:
        raise Unauthenticated(
            "the access token has expired",
            reason="token_expired",
            actions=("Get a new one with POST /api/v1/auth/refresh, or sign in again.",),
        ) from None
    except (jwt.InvalidTokenError, UnicodeError):
        raise Unauthenticated("the access token is not one of this installation", reason="token_invalid") from None
    if claims.get("typ") != "access":
        raise Unauthenticated("this is not an access token", reason="token_invalid")
    return str(claims["sub"])


def new_refresh_token() -> str:
    """256 random bits; whoever has them may continue the session once."""
    return f"vwr_{secrets.token_urlsafe(32)}"


def token_hash(token: str) -> str:
    """How a random token is kept: it is long enough that a plain hash cannot be searched."""
    return hashlib.sha256(token.encode()).hexdigest()
