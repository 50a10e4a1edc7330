"""How is a password kept? As an argon2id hash, computed away from the event loop."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from libs.common.errors import InvalidInput

PASSWORD_MAX_LENGTH = 256

# RFC 9106's second recommendation asks for 64 MiB, which several logins at once would take from a gateway that is to
# stay under 150 MB; OWASP's equivalent 19 MiB, two passes, one lane is used instead.
_hasher = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)
_hashers = ThreadPoolExecutor(2, thread_name_prefix="passwords")
# Verified when there is no such account, so that the time of an answer does not tell.
_NOBODY = _hasher.hash("nobody has this password")


async def hash_password(password: str) -> str:
    """An argon2id hash with its parameters and salt."""
    return await asyncio.get_running_loop().run_in_executor(_hashers, _hasher.hash, password)


async def is_password(password_hash: str | None, password: str) -> bool:
    """Whether `password` fits; takes as long for an account that does not exist (`password_hash` None)."""
    fits = await asyncio.get_running_loop().run_in_executor(_hashers, _fits, password_hash or _NOBODY, password)
    return fits and password_hash is not None


def _fits(password_hash: str, password: str) -> bool:
    try:
        return _hasher.verify(password_hash, password)
    except (VerificationError, InvalidHashError):
        return False


def check_password(password: str, min_length: int) -> None:
    """Raises InvalidInput for a password that is too short or too long."""
    if len(password) < min_length:
        raise InvalidInput(
            f"the password has {len(password)} characters, {min_length} are needed",
            field="password",
            actions=(f"Choose a password of at least {min_length} characters.",),
        )
    if len(password) > PASSWORD_MAX_LENGTH:
        raise InvalidInput(f"the password is longer than {PASSWORD_MAX_LENGTH} characters", field="password")
