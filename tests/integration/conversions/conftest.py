"""Gateway, ingest and inference as real processes over a real broker, with a voice that is there already."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.common.settings import CommonSettings
from scripts.processes import free_port
from services.gateway.accounts.tables import Role, User
from services.gateway.accounts.tokens import issue_access_token
from services.gateway.database import Database, new_id
from services.gateway.migrate import migrate
from services.gateway.settings import GatewaySettings
from services.gateway.voices import registry
from tests.conftest import TOKEN, NatsServer
from tests.factories_audio import make_speech
from tests.integration.inference.voice_factory import Voices
from tests.integration.voice_services.platform import LEASES_RUN_OUT, Platform, Service, platform
from tests.waiting import PATIENCE

NAMES = ("ingest", "inference", "gateway")


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

    async def delete(self, path: str) -> httpx.Response:
        return await self.http.delete(f"/api/v1{path}")

    async def convert(self, *files: Path, voice: str = "anna", **fields: Any) -> dict[str, Any]:
        """A conversion job over `files`, as it was accepted."""
        headers = fields.pop("headers", {})
        sent: list[Any] = [("files", (path.name, path.read_bytes())) for path in files] or [("_", (None, b""))]
        answer = await self.post(
            "/convert/jobs", data={"voice": voice, "f0_method": "praat", **fields}, files=sent, headers=headers
        )
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        return job

    async def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.get(f"/convert/jobs/{job_id}")).json()
        return found

    async def results(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.get(f"/convert/jobs/{job_id}/results")).json()
        return found

    async def until(self, job_id: str, fits: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The job once it `fits`; a gateway that is restarting may not answer in between."""
        deadline = time.monotonic() + 2 * PATIENCE
        job: dict[str, Any] = {}
        while time.monotonic() < deadline:
            try:
                job = await self.job(job_id)
            except httpx.TransportError:
                await asyncio.sleep(0.1)
                continue
            if fits(job):
                return job
            await asyncio.sleep(0.05)
        raise AssertionError(f"still {job}")

    async def over(self, job_id: str) -> dict[str, Any]:
        return await self.until(job_id, lambda job: job["status"] in ("completed", "failed", "cancelled"))


@dataclass
class Studio:
    """The three services, and what a test does with them."""

    here: Platform
    settings: GatewaySettings
    database: Database
    voices: Voices
    environment: dict[str, str]
    running: dict[str, Service] = field(default_factory=dict)
    clients: list[httpx.AsyncClient] = field(default_factory=list)

    def start(self, name: str, **more: Any) -> Service:
        """Starts a service on its port, which stays the same over restarts."""
        port = int(self.environment[f"{name.upper()}_URL"].rsplit(":", 1)[1])
        service = self.here.start(name, **self.environment, PORT=port, **more)
        service.port, service.url = port, f"http://127.0.0.1:{port}"
        self.running[name] = service
        return service

    async def restart(self, name: str, how: signal.Signals = signal.SIGKILL, **more: Any) -> Service:
        """Ends a service and starts it again."""
        self.running[name].signal(how)
        await asyncio.to_thread(self.running[name].process.wait, PATIENCE)
        service = self.start(name, **more)
        await service.wait_until_ready()
        return service

    async def person(self, name: str = "anna", role: Role = Role.creator) -> Person:
        user_id = new_id("usr")
        async with self.database.write() as session:
            session.add(User(id=user_id, email=f"{name}@example.org", name=name, role=role.value, password_hash="-"))
        token = issue_access_token(self.settings, user_id, role.value)
        client = httpx.AsyncClient(
            base_url=self.running["gateway"].url,
            headers={"Authorization": f"Bearer {token}"},
            timeout=60,
            trust_env=False,
        )
        self.clients.append(client)
        return Person(user_id, token, client)

    async def voice(self, owner: Person, slug: str = "anna", version: str = "job_1", **more: Any) -> None:
        """A voice that is published, on disk and in the registry."""
        sha256 = self.voices.publish(slug, version, **more)
        async with self.database.write() as session:
            await registry.publish(
                session, owner_id=owner.id, job_id=version, slug=slug, name=slug, card={}, weights_sha256=sha256
            )

    def records(self, job_id: str) -> list[Path]:
        """The records of recordings that are done, of all attempts."""
        folder = self.here.paths.experiment(".jobs").step(job_id, "convert").folder
        return sorted(folder.glob(".attempt-*/records/*.json"))


@pytest.fixture
def recordings(tmp_path: Path) -> Callable[..., Path]:
    """Makes a recording of speech: `recordings("a.mp3", seconds=2.0)`."""
    folder = tmp_path / "in"
    folder.mkdir()

    def make(name: str, seconds: float = 1.5, seed: int = 0) -> Path:
        return make_speech(seconds, "en-us", folder / name, seed=seed)

    return make


@pytest.fixture
async def studio(
    nats_server: NatsServer, make_settings: Callable[..., CommonSettings], tmp_path: Path
) -> AsyncIterator[Studio]:
    common = make_settings(nats_url=nats_server.url)
    database_url = f"sqlite+aiosqlite:///{tmp_path}/gateway.db"
    environment = {f"{name.upper()}_URL": f"http://127.0.0.1:{free_port()}" for name in NAMES} | {
        "DATABASE_URL": database_url,
        "ADMIN_PASSWORD": "a-long-password",
        "OUTBOX_POLL": "0.1",
        "OUTBOX_CLAIM": "1",
        "PROGRESS_WRITE": "0.1",
        "HEARTBEAT_COMMENT": "0.3",
        "SWEEP_EVERY": "0.5",
        "EXAMINERS": "2",
        **LEASES_RUN_OUT,
    }
    settings = GatewaySettings(
        **{name: value for name, value in common.model_dump().items() if name in GatewaySettings.model_fields}
        | {"service_token": TOKEN, "database_url": database_url}
    )
    await migrate(settings)
    common.models_root.mkdir()
    async with platform(common, nats_server, tmp_path / "said") as here:
        database = Database(settings)
        studio = Studio(here, settings, database, Voices(here.paths, tmp_path / "scratch"), environment)
        try:
            for name in NAMES:
                studio.start(name)
            for service in list(studio.running.values()):
                await service.wait_until_ready()
            yield studio
        finally:
            for client in studio.clients:
                await client.aclose()
            await database.close()
