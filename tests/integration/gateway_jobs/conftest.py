"""A gateway for one test: a real broker, a real database, people with datasets, and workers that follow a script."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
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

from libs.common.bus import Bus
from scripts.processes import free_port
from services.gateway.accounts.tables import Role, User
from services.gateway.accounts.tokens import issue_access_token
from services.gateway.app import create_app
from services.gateway.database import Database, new_id, new_ulid, utcnow
from services.gateway.datasets.tables import Dataset, Sample, SampleStatus
from services.gateway.jobs import outbox, turns
from services.gateway.migrate import migrate
from services.gateway.settings import GatewaySettings
from tests.conftest import TOKEN, NatsServer
from tests.integration.gateway_jobs.scripted_workers import Workers
from tests.postgres import running_postgres
from tests.waiting import PATIENCE, until


def _apart(work: Coroutine[Any, Any, None]) -> None:
    """Runs `work` in a loop of its own, also when an asynchronous fixture asked for it."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, work).result()


async def _administer(url: str, *statements: str) -> None:
    engine = create_async_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
    async with engine.connect() as connection:
        for statement in statements:
            await connection.execute(text(statement))
    await engine.dispose()


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database that tests copy."""
    file = tmp_path_factory.mktemp("migrated") / "gateway.db"
    _apart(migrate(GatewaySettings(service_token=TOKEN, database_url=f"sqlite+aiosqlite:///{file}")))
    return file


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A server with a migrated database `migrated_jobs`, which tests copy."""
    with running_postgres() as url:
        _apart(_administer(url, "DROP DATABASE IF EXISTS migrated_jobs", "CREATE DATABASE migrated_jobs"))
        _apart(migrate(GatewaySettings(service_token=TOKEN, database_url=f"{url}/migrated_jobs")))
        yield url


BOTH_DATABASES = pytest.mark.parametrize("database_kind", ["sqlite", "postgresql"])


@pytest.fixture
def database_kind() -> str:
    """SQLite, unless a module says BOTH_DATABASES."""
    return "sqlite"


@pytest.fixture
def database_url(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A migrated database of the test's own."""
    if database_kind == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "gateway.db")
        yield f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
        return
    url = request.getfixturevalue("postgres")
    name = f"jobs_{new_ulid().lower()}"
    _apart(_administer(url, f"CREATE DATABASE {name} TEMPLATE migrated_jobs"))
    yield f"{url}/{name}"
    _apart(_administer(url, f"DROP DATABASE {name} WITH (FORCE)"))


# For tests that kill the broker: what was in somebody's hand then comes again soon. Elsewhere nothing does, because a
# script that a busy machine holds up for seconds would see its command twice.
SOON_AGAIN = pytest.mark.parametrize("ack_wait", [3.0])


@pytest.fixture
def ack_wait() -> float:
    """Seconds after which an unacknowledged message comes again."""
    return 40.0


@pytest.fixture
def settings(nats_server: NatsServer, tmp_path: Path, database_url: str, ack_wait: float) -> GatewaySettings:
    return GatewaySettings(
        service_token=TOKEN,
        data_root=tmp_path / "data",
        models_root=tmp_path / "models",
        assets_root=tmp_path / "assets",
        database_url=database_url,
        nats_url=nats_server.url,
        admin_password="a-long-password",
        ack_wait=ack_wait,
        heartbeat=0.75,
        lease_ttl=2.25,
        cancel_poll=0.05,
        retry_delays=(0.25, 1.25, 6.25),
        poll_interval=0.05,
        drain_timeout=30.0,
        log_files=False,
        outbox_poll=0.1,
        outbox_claim=1.0,
        broker_look=0.2,
        progress_write=0.2,
        heartbeat_comment=0.3,
    )


@pytest.fixture
async def database(settings: GatewaySettings) -> AsyncIterator[Database]:
    database = Database(settings)
    yield database
    await database.close()


@pytest.fixture
async def bus(settings: GatewaySettings) -> AsyncIterator[Bus]:
    """A listener's own connection, for looking at streams and buckets."""
    bus = await Bus.connect(settings, "gateway")
    await bus.ensure()
    yield bus
    await bus.close()


@dataclass
class Person:
    """Somebody with a token and a client."""

    id: str
    token: str
    http: httpx.AsyncClient

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.get(f"/api/v1{path}", **more)

    async def post(self, path: str, **more: Any) -> httpx.Response:
        return await self.http.post(f"/api/v1{path}", **more)


@dataclass
class House:
    """A running gateway and what a test does with it."""

    settings: GatewaySettings
    database: Database
    app: FastAPI
    url: str
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    async def person(self, name: str = "anna", role: Role = Role.creator) -> Person:
        async with self.database.write() as session:
            user = User(id=new_id("usr"), email=f"{name}@example.org", role=role.value, password_hash="-")
            session.add(user)
        return self.known(user.id, role)

    def known(self, user_id: str, role: Role = Role.creator) -> Person:
        token = issue_access_token(self.settings, user_id, role.value)
        client = httpx.AsyncClient(
            base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=PATIENCE, trust_env=False
        )
        self.clients.append(client)
        return Person(user_id, token, client)

    async def reach_broker(self) -> None:
        """Waits until the gateway has found its broker."""
        await asyncio.wait_for(self.app.state.parts.reached.wait(), PATIENCE)

    async def dataset(
        self, owner: Person, slug: str = "anna", seconds: tuple[float, ...] = (30.0, 40.0), name: str = ""
    ) -> str:
        """A dataset with recordings; returns its id."""
        async with self.database.write() as session:
            dataset = Dataset(id=new_id("dst"), owner_id=owner.id, slug=slug, name=name or slug)
            session.add(dataset)
            await session.flush()
            for number, duration in enumerate(seconds):
                session.add(
                    Sample(
                        id=new_id("smp"),
                        dataset_id=dataset.id,
                        owner_id=owner.id,
                        sha256=f"{number:064x}",
                        extension="wav",
                        original_name=f"{number}.wav",
                        mime_type="audio/wav",
                        size_bytes=1000,
                        duration_seconds=duration,
                        status=SampleStatus.ready.value,
                        report={},
                    )
                )
        return dataset.id

    async def train(self, owner: Person, dataset: str, **more: Any) -> dict[str, Any]:
        answer = await owner.post("/training/jobs", json={"dataset_id": dataset} | more)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    async def wait(
        self, owner: Person, job_id: str, fits: Callable[[dict[str, Any]], bool], seconds: float = PATIENCE
    ) -> dict[str, Any]:
        """The job once it `fits`."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            job: dict[str, Any] = (await owner.get(f"/training/jobs/{job_id}")).json()
            if fits(job):
                return job
            assert asyncio.get_running_loop().time() < deadline, f"still {json.dumps(job, indent=1)}"
            await asyncio.sleep(0.02)

    async def wait_prepared(self, owner: Person, job_id: str) -> dict[str, Any]:
        """A preprocess job once it is completed."""

        async def completed() -> dict[str, Any] | None:
            job: dict[str, Any] = (await owner.get(f"/preprocess/jobs/{job_id}")).json()
            return job if job["status"] == "completed" else None

        found: dict[str, Any] = await until(completed)
        return found

    async def until_all_is_sent(self) -> None:
        """Waits until no command has its turn before it and nothing is left in the outbox."""

        async def is_empty() -> bool:
            async with self.database.read() as session:  # in the order in which a command passes
                due = await turns.due(session, self.settings.queue_ahead, utcnow())
                return not due and await outbox.unsent(session) == 0

        await until(is_empty)

    async def wait_status(self, owner: Person, job_id: str, status: str, seconds: float = PATIENCE) -> dict[str, Any]:
        return await self.wait(owner, job_id, lambda job: job["status"] == status, seconds)


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[str]:
    """The app behind a real socket: in-memory clients do not stream."""
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    server.capture_signals = _no_signals  # type: ignore[method-assign,assignment]  # the test runner's own stay
    task = asyncio.create_task(server.serve())
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await task


class _no_signals:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@asynccontextmanager
async def running_house(settings: GatewaySettings, database: Database) -> AsyncIterator[House]:
    app = create_app(settings, database=database)
    async with served(app) as url:
        house = House(settings, database, app, url)
        yield house
        for client in house.clients:
            await client.aclose()


@pytest.fixture
async def house(settings: GatewaySettings, database: Database) -> AsyncIterator[House]:
    async with running_house(settings, database) as house:
        await house.reach_broker()
        yield house


@pytest.fixture
async def workers(settings: GatewaySettings) -> AsyncIterator[Workers]:
    workers = Workers(settings)
    await workers.open()
    yield workers
    await workers.close()
