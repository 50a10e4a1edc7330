"""Is the gateway light, and does it come back after it was killed?"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.paths import Paths
from libs.common.storage import open_storage
from scripts.processes import free_port
from services.gateway.accounts.tables import User
from services.gateway.database import Database
from services.gateway.jobs.tables import Job
from services.gateway.settings import GatewaySettings
from services.gateway.voices.tables import Voice
from tests.conftest import TOKEN
from tests.integration.gateway.conftest import ADMIN, gateway_settings, served
from tests.integration.gateway.ingest_double import IngestDouble, sound
from tests.waiting import PATIENCE, until

HEAVY = ("numpy", "torch", "av", "soundfile", "soxr", "libs.audio", "libs.voice")


def _environment(folder: Path, port: int, **more: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "SERVICE_TOKEN": TOKEN,
        "DATA_ROOT": str(folder / "data"),
        "MODELS_ROOT": str(folder / "models"),
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/gateway.db",
        "NATS_URL": "nats://127.0.0.1:1",
        "PORT": str(port),
        "ADMIN_EMAIL": ADMIN[0],
        "ADMIN_PASSWORD": ADMIN[1],
        "LOG_FILES": "false",
        **more,
    }


@contextmanager
def _gateway(environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """The gateway as a process of its own."""
    subprocess.run([sys.executable, "-m", "services.gateway.migrate"], env=environment, check=True, timeout=150)
    process = subprocess.Popen([sys.executable, "-m", "services.gateway"], env=environment, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=PATIENCE)


async def _alive(port: int) -> httpx.AsyncClient:
    client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v1", timeout=PATIENCE, trust_env=False)

    async def answers() -> bool:
        try:
            return (await client.get("/version")).status_code == 200
        except httpx.TransportError:
            return False

    await until(answers)
    tokens = await client.post("/auth/login", json={"email": ADMIN[0], "password": ADMIN[1]})
    client.headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"
    return client


def test_the_gateway_imports_no_sound_and_no_networks() -> None:
    code = f"import sys, services.gateway.app\nprint([m for m in {HEAVY!r} if m in sys.modules])"

    found = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": os.environ["PATH"], "SERVICE_TOKEN": TOKEN},
        capture_output=True,
        text=True,
        timeout=150,
    )

    assert found.stdout.strip() == "[]", found.stderr


async def test_an_idle_gateway_stays_under_150_megabytes(tmp_path: Path) -> None:
    port = free_port()
    with _gateway(_environment(tmp_path, port)) as process:
        client = await _alive(port)
        for _ in range(20):
            await client.get("/datasets")

        used = psutil.Process(process.pid).memory_info().rss
        await client.aclose()

    print(f"resident memory of an idle gateway: {used / 1e6:.0f} MB")
    assert used < 150_000_000


async def test_a_gateway_that_ends_on_a_signal_says_goodbye(tmp_path: Path) -> None:
    port = free_port()
    with _gateway(_environment(tmp_path, port)) as process:
        await (await _alive(port)).aclose()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)

    assert process.returncode in (0, -signal.SIGTERM)


@pytest.fixture
async def ingest() -> AsyncIterator[tuple[IngestDouble, str]]:
    double = IngestDouble(TOKEN)
    async with served(double.app()) as url:
        yield double, url


async def test_a_gateway_killed_in_the_middle_of_an_upload_leaves_no_row_that_points_to_nothing(
    tmp_path: Path, ingest: tuple[IngestDouble, str]
) -> None:
    double, url = ingest
    port = free_port()
    environment = _environment(tmp_path, port, INGEST_URL=url, STAGED_LIFETIME="0.1")
    double.claim_gate = asyncio.Event()
    form = {"data": {"exp_name": "test"}, "headers": {"Idempotency-Key": "once"}}
    files = [("files", ("a.wav", sound("a"))), ("files", ("b.wav", sound("b")))]
    with _gateway(environment) as process:
        client = await _alive(port)
        sending = asyncio.create_task(client.post("/samples", files=files, **form))
        await double.is_claiming.wait()
        process.kill()
        with pytest.raises(httpx.TransportError):
            await sending
        await client.aclose()
    double.claim_gate.set()
    await until(lambda: len(double.files) == 2)
    lost = next(iter(double.files))
    del double.files[lost]

    await asyncio.sleep(0.2)  # STAGED_LIFETIME and more
    with _gateway(environment):
        client = await _alive(port)

        async def listing() -> list[str]:
            return [item["sha256"] for item in (await client.get("/samples")).json()["items"]]

        listed = await until(listing)
        await client.aclose()

    assert listed == [key[1] for key in double.files]
    assert lost[1] not in listed


async def test_a_gateway_killed_in_the_middle_of_a_deletion_finishes_it_at_its_next_start(
    tmp_path: Path, ingest: tuple[IngestDouble, str]
) -> None:
    double, url = ingest
    port = free_port()
    environment = _environment(tmp_path, port, INGEST_URL=url)
    settings = gateway_settings(tmp_path)
    folder, storage = Paths(settings).voice("anna").folder, open_storage(settings)
    folder.mkdir(parents=True)
    (folder / "voice.json").touch()
    storage.put_file(settings.voice_models_bucket, "anna/job_1/voice.json", folder / "voice.json")
    double.sweep_gate = asyncio.Event()
    with _gateway(environment) as process:
        client = await _alive(port)
        async with _rows(settings) as session:
            owner = await session.scalar(select(User.id))
            session.add(Voice(id="vox_1", owner_id=owner, slug="anna", name="Anna", status="ready", job_id="job_1"))
            session.add(
                Job(id="job_1", owner_id=owner, kind="training", name="a", dataset_id="d", dataset="speech",
                    experiment="speech", voice="anna", preset="lite", options={}, inputs=[], status="completed")
            )  # fmt: skip
        deleting = asyncio.create_task(client.delete("/models/anna"))
        await double.is_sweeping.wait()
        process.kill()
        with pytest.raises(httpx.TransportError):
            await deleting
        await client.aclose()
    async with _rows(settings) as session:
        between = await session.scalar(select(Voice.status))
    double.sweep_gate.set()
    double.swept.clear()

    with _gateway(environment):
        await (await _alive(port)).aclose()

        async def is_deleted() -> bool:
            async with _rows(settings) as session:
                return bool(await session.scalar(select(Voice.status)) == "deleted")

        await until(is_deleted)

    assert between == "deleting"
    assert not folder.exists()
    assert storage.list(settings.voice_models_bucket) == []
    assert [(slug, job) for slug, job, _ in double.swept] == [("speech", "job_1")]


@asynccontextmanager
async def _rows(settings: GatewaySettings) -> AsyncIterator[AsyncSession]:
    """The gateway's database, from beside it."""
    database = Database(settings)
    try:
        async with database.write() as session:
            yield session
    finally:
        await database.close()
