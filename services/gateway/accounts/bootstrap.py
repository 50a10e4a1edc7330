"""Who is the first administrator? From ADMIN_EMAIL and ADMIN_PASSWORD, or with a password that is printed once."""

from __future__ import annotations

import secrets
import sys

from sqlalchemy import select

from libs.common.logs import get_logger
from services.gateway.accounts import users
from services.gateway.accounts.tables import Role, User
from services.gateway.audit import audit
from services.gateway.database import Database, new_id
from services.gateway.settings import GatewaySettings

log = get_logger("gateway.accounts")


async def ensure_first_admin(database: Database, settings: GatewaySettings) -> None:
    """Makes an administrator when there is no account at all; an existing one is never changed from the environment."""
    async with database.read() as session:
        if await session.scalar(select(User.id).limit(1)) is not None:
            return
    given = settings.admin_password
    password = given.get_secret_value() if given else secrets.token_urlsafe(15)
    try:
        await users.create(
            database,
            user_id=new_id("usr"),
            actor=audit.SYSTEM,
            email=settings.admin_email,
            name="Administrator",
            role=Role.admin,
            password=password,
            min_length=settings.password_min_length,
        )
    except users.EmailTaken:
        return  # another replica was faster
    log.info("accounts.first_admin", email=settings.admin_email)
    if given is None:
        # To the console and not into the log files, which others may read.
        print(
            f"\n  The first administrator of this installation (shown once):\n"
            f"      e-mail    {settings.admin_email}\n      password  {password}\n",
            file=sys.stderr,
            flush=True,
        )
