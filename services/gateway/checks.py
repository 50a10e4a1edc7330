"""Is the gateway ready? Its database answers with the schema of this version, and the broker is connected."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from libs.common.errors import Unavailable
from libs.common.health import BrokerCheck
from services.gateway.database import Database
from services.gateway.parts import Parts
from services.gateway.schema import head_revision


class DatabaseCheck:
    """The database answers and is migrated."""

    name = "database"

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __call__(self) -> str:
        try:
            async with self._database.read() as session:
                revision = (await session.execute(text("SELECT version_num FROM alembic_version"))).scalar_one_or_none()
        except (SQLAlchemyError, OSError) as error:
            raise Unavailable(f"the database does not answer: {type(error).__name__}") from error
        if revision != head_revision():
            raise Unavailable(
                f"the database has schema {revision}, this version needs {head_revision()}: "
                "run `python -m services.gateway.migrate`"
            )
        return f"schema {revision}"


class GatewayBrokerCheck:
    """The broker was reached and still answers."""

    name = "broker"

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self) -> str:
        return await BrokerCheck(self._parts.bus)()
