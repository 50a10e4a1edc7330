"""A gateway on a real socket for each test, on SQLite and on PostgreSQL, with doubles of ingest and inference."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from libs.common import logs
from scripts.processes import free_port
from services.gateway.accounts.tables import Role, User
from services.gateway.accounts.tokens import issue_access_token
from services.gateway.app import create_app
from services.gateway.database import Database, new_id, new_ulid
from services.gateway.migrate import migrate
from services.gateway.parts import Parts
from services.gateway.settings import GatewaySettings
from tests.conftest import TOKEN
from tests.integration.gateway.ingest_double import InferenceDouble, IngestDouble, sound
from tests.postgres import running_postgres
from tests.waiting import PATIENCE

ADMIN = ("admin@example.org", "a-long-password")


def gateway_settings(folder: Path, **changes: Any) -> GatewaySettings:
    """Settings whose inner services and broker are not there, unless `changes` name some."""
    values: dict[str, Any] = {
        "service_token": TOKEN,
        "data_root": folder / "data",
        "models_root": folder / "models",
        "assets_root": folder / "assets",
        "database_url": f"sqlite+aiosqlite:///{folder}/gateway.db",
        "nats_url": "nats://127.0.0.1:1",
        "ingest_url": "http://127.0.0.1:1",
        "inference_url": "http://127.0.0.1:1",
        "admin_email": ADMIN[0],
        "admin_password": ADMIN[1],
        "log_files": False,
        "drain_timeout": 2.0,
    }
    return GatewaySettings(**(values | changes))


def _apart(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in a loop of its own, also when an asynchronous fixture asked for it."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Without this, an unexpected error is drawn with all local variables, which takes seconds."""
    logs.configure("gateway", level="WARNING")


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database that tests copy."""
    folder = tmp_path_factory.mktemp("migrated")
    _apart(migrate(gateway_settings(folder)))
    return folder / "gateway.db"


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server with a migrated database `migrated`, which tests copy."""
    with running_postgres() as url:
        _apart(_admin(url, 'DROP DATABASE IF EXISTS "migrated"', 'CREATE DATABASE "migrated"'))
        _apart(migrate(gateway_settings(Path("/nonexistent"), database_url=f"{url}/migrated")))
        yield url


async def _admin(url: str, *statements: str) -> None:
    engine = create_async_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


async def create_database(server: str, template: str = "template1") -> str:
    """The URL of a new database on `server`, which goes when the server does."""
    name = f"t{new_ulid().lower()}"
    await _admin(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    return f"{server}/{name}"


@asynccontextmanager
async def empty_postgres(server: str, template: str = "template1") -> AsyncIterator[str]:
    """A database of its own on `server`."""
    url = await create_database(server, template)
    try:
        yield url
    finally:
        await _admin(server, f'DROP DATABASE "{url.rsplit("/", 1)[1]}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """A migrated database of the test's own."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "gateway.db")
        yield f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
        return
    async with empty_postgres(request.getfixturevalue("postgres"), template="migrated") as url:
        yield url


@asynccontextmanager
async def served(app: FastAPI, port: int = 0) -> AsyncIterator[str]:
    """`app` on a real socket; its address."""
    port = port or free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@dataclass
class Person:
    """Somebody with a token and a client."""

    id: str
    http: httpx.AsyncClient

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", **more)

    async def post(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1{path}", **more)

    async def patch(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.patch(f"/api/v1{path}", **more)

    async def delete(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.delete(f"/api/v1{path}", **more)

    async def upload(self, dataset: str, *seeds: str, speaker_id: int | None = None, **more: Any) -> dict[str, Any]:
        """Recordings into the person's dataset of that name."""
        files = [("files", (f"{seed}.wav", sound(seed))) for seed in seeds]
        said = {"dataset_name": dataset} | ({} if speaker_id is None else {"speaker_id": str(speaker_id)})
        answer = await self.post("/samples", data=said, files=files, **more)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


@dataclass
class House:
    """A running gateway with its neighbours."""

    settings: GatewaySettings
    parts: Parts
    url: str
    ingest: IngestDouble
    inference: InferenceDouble
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    @property
    def database(self) -> Database:
        return self.parts.database

    def stranger(self, token: str | None = None) -> httpx.AsyncClient:
        """A client with the given token, or with none."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=PATIENCE, trust_env=False)
        self.clients.append(client)
        return client

    async def person(self, name: str = "anna", role: Role = Role.creator) -> Person:
        user_id = new_id("usr")
        async with self.database.write() as session:
            session.add(User(id=user_id, email=f"{name}@example.org", name=name, role=role.value, password_hash="-"))
        return Person(user_id, self.stranger(issue_access_token(self.settings, user_id, role.value)))


@asynccontextmanager
async def running_house(tmp_path: Path, database_url: str, **changes: Any) -> AsyncIterator[House]:
    """Gateway, ingest and inference, each on its own port."""
    ingest = IngestDouble(TOKEN)
    inference = InferenceDouble(ingest)
    async with served(ingest.app()) as ingest_url, served(inference.app()) as inference_url:
        settings = gateway_settings(
            tmp_path,
            **({"database_url": database_url, "ingest_url": ingest_url, "inference_url": inference_url} | changes),
        )
        app = create_app(settings)
        async with served(app) as url:
            house = House(settings, app.state.parts, url, ingest, inference)
            try:
                yield house
            finally:
                for client in house.clients:
                    await client.aclose()


@pytest.fixture
async def house(tmp_path: Path, database_url: str) -> AsyncIterator[House]:
    async with running_house(tmp_path, database_url) as running:
        yield running


@pytest.fixture
async def sqlite_house(tmp_path: Path, migrated_sqlite: Path) -> AsyncIterator[House]:
    """For what has nothing to do with the database."""
    shutil.copy(migrated_sqlite, tmp_path / "gateway.db")
    async with running_house(tmp_path, f"sqlite+aiosqlite:///{tmp_path}/gateway.db") as running:
        yield running
