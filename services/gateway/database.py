"""How does the gateway speak with its database? Engine, transactions, column types, ids; SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import JSON, URL, DateTime, Dialect, Engine, MetaData, Select, StaticPool, event, text
from sqlalchemy import create_engine as create_plain_engine
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.types import TypeDecorator

from libs.common.errors import Busy
from services.gateway.settings import GatewaySettings

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

T = TypeVar("T")

Json = JSON().with_variant(JSONB(), "postgresql")


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC: aware in Python on every database; refuses naive values."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone cannot be stored")
        value = value.astimezone(UTC)
        return value if dialect.name == "postgresql" else value.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """Mother of all tables. Constraints have names, so that SQLite's batch migrations can find them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime(), dict[str, Any]: Json, dict[str, str]: Json, list[Any]: Json}


def utcnow() -> datetime:
    """Now, in UTC, to the microsecond that both databases keep."""
    return datetime.now(UTC)


class _Ids:
    """ULIDs: 48 bits of milliseconds, 80 random bits; ids of one process grow strictly, also within a millisecond."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> str:
        with self._lock:
            fresh = (time.time_ns() // 1_000_000) << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS - 1)
            self._last = fresh if fresh >> _RANDOM_BITS > self._last >> _RANDOM_BITS else self._last + 1
            number = self._last
        return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


_ids = _Ids()


def new_ulid() -> str:
    """26 characters [0-9A-Z], sortable by time."""
    return _ids.next()


def new_id(prefix: str) -> str:
    """An opaque id such as `job_01J9…`: sortable by time, safe in URLs and bus subjects."""
    return f"{prefix}_{new_ulid()}"


async def one_at_a_time(session: AsyncSession, *what: str) -> None:
    """Lets only one transaction go on from here that names the same things; on SQLite writes are in turn anyway.

    For "look, and make it when it is not there", where there is no row yet that could be locked.
    """
    if session.get_bind().dialect.name == "postgresql":
        digest = hashlib.sha256("\0".join(what).encode("utf-8", "replace")).digest()
        key = int.from_bytes(digest[:8], "big", signed=True)
        await session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": key})


class Database:
    """The gateway's database. `read()` and `write()` each open one transaction; a write commits when its block ends."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.url = settings.database_url
        self._wait = settings.database_wait.total_seconds()
        self.engine = create_engine(settings)
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        writer = self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE") if self.is_sqlite else self.engine
        self._readers = async_sessionmaker(self.engine, expire_on_commit=False)
        self._writers = async_sessionmaker(writer, expire_on_commit=False)
        # SQLite has one writer. Waiting in a fair queue here is faster than its busy handler, which sleeps and retries.
        self._turn: asyncio.Lock | None = asyncio.Lock() if self.is_sqlite else None
        self._near = _create_near_engine(settings)

    async def look_up(self, statement: Select[T], **values: object) -> T | None:
        """The one object that a statement finds by key, detached and as last committed; None when there is none.

        In SQLite's file this is a few pages of memory: it is read at once, on the loop's own thread, because every call
        of the asynchronous driver is a trip to a thread that waits for the interpreter. Only for a row by its key.
        """
        if self._near is not None:
            try:
                with Session(self._near, expire_on_commit=False) as near:
                    return near.scalar(statement, values)
            except DBAPIError:
                pass  # locked for a moment, as after a crash: the driver's threads can wait, the loop cannot
        async with self.read() as session:
            return (await session.execute(statement, values)).scalar_one_or_none()

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session for reading; nothing that is changed in it is kept."""
        async with self._readers() as session:
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session for writing: commits when the block ends, rolls back when it raises. Never nest two of them.

        Raises Busy when the turn does not come within DATABASE_WAIT.
        """
        if self._turn is not None:
            try:
                await asyncio.wait_for(self._turn.acquire(), self._wait)
            except TimeoutError:
                raise Busy("the database is busy with other writes", retry_after=1) from None
        try:
            async with self._writers() as session, session.begin():
                yield session
        finally:
            if self._turn is not None:
                self._turn.release()

    async def close(self) -> None:
        if self._near is not None:
            self._near.dispose()
        await self.engine.dispose()


def create_engine(settings: GatewaySettings) -> AsyncEngine:
    """An engine for `DATABASE_URL`: SQLite in WAL mode with foreign keys, or PostgreSQL in UTC."""
    if settings.database_url.startswith("sqlite"):
        file = settings.sqlite_file
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
        engine = create_async_engine(
            settings.database_url,
            pool_size=settings.database_pool,
            max_overflow=0,
            connect_args={"timeout": settings.database_wait.total_seconds()},
        )
        _speak_sqlite(engine)
        return engine
    return create_async_engine(
        settings.database_url,
        pool_size=settings.database_pool,
        max_overflow=settings.database_pool,
        pool_pre_ping=True,
        connect_args={"server_settings": {"timezone": "UTC", "application_name": "voicewright-gateway"}},
    )


def _create_near_engine(settings: GatewaySettings) -> Engine | None:
    """One connection for `look_up`: it never writes, never waits, and holds no transaction open."""
    if settings.sqlite_file is None:
        return None
    engine = create_plain_engine(
        URL.create("sqlite", database=str(settings.sqlite_file)),
        poolclass=StaticPool,
        connect_args={"timeout": 0, "check_same_thread": False, "isolation_level": None},
    )

    @event.listens_for(engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only=ON")

    return engine


def _speak_sqlite(engine: AsyncEngine) -> None:
    """WAL, foreign keys, and transactions that we begin ourselves: the driver's own would begin too late."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=NORMAL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Any) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("sqlite_begin", "BEGIN"))
