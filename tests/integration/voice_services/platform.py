"""A broker, folders and real service processes for the tests of preprocessor, trainer and inference."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import psutil

from libs.common import manifests
from libs.common.bus import Bus
from libs.common.events import (
    BuildIndex,
    Command,
    EvaluateVoice,
    InputFile,
    ManifestRef,
    PrepareDataset,
    PublishVoice,
    StepFinished,
    TrainingOptions,
    TrainVoice,
)
from libs.common.jobs import Lane, Step
from libs.common.paths import Paths
from libs.common.settings import CommonSettings
from scripts.processes import free_port
from tests.conftest import TOKEN, NatsServer
from tests.hearing import Events
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).parents[3]
TIMES = {
    "ACK_WAIT": "20",
    "HEARTBEAT": "0.5",
    "LEASE_TTL": "400",
    "CANCEL_POLL": "0.05",
    "POLL_INTERVAL": "0.05",
    "WORKER_TTL": "6",
    "RETRY_DELAYS": "0.25,0.5,1",
    "DRAIN_TIMEOUT": "50",
    "CHECKPOINT_EVERY": "0.5",
    "TRAINING_THREADS": "1",
    "INFERENCE_THREADS": "1",
}
# For tests in which a dead worker's lease has to run out. Elsewhere none does: a worker that a busy machine holds up
# for seconds keeps its step.
LEASES_RUN_OUT = {"ACK_WAIT": "6", "LEASE_TTL": "5"}
# For tests in which a step changes hands: it was handed over, because nothing runs out while a test waits.
NOTHING_RUNS_OUT = {"ACK_WAIT": "400", "LEASE_TTL": "400"}


class Service:
    """One real process of a service, and what it said."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, output: Path) -> None:
        self.name = name
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self._output = output

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def said(self) -> str:
        return self._output.read_text(errors="replace")

    def signal(self, how: signal.Signals) -> None:
        self.process.send_signal(how)

    def kill(self) -> None:
        """SIGKILL to this process alone, not to its children."""
        self.process.kill()
        self.process.wait(PATIENCE)

    async def wait_until_ready(self, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        async with httpx.AsyncClient() as client:
            while True:
                assert self.process.poll() is None, f"{self.name} ended: {self.said[-3000:]}"
                with contextlib.suppress(httpx.HTTPError):
                    answer = await client.get(f"{self.url}/readyz", timeout=10)
                    if answer.status_code == 200:
                        return
                assert time.monotonic() < deadline, f"{self.name} is not ready: {self.said[-3000:]}"
                await asyncio.sleep(0.1)

    async def wait_for_words(self, words: str, *, count: int = 1, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while self.said.count(words) < count:
            assert time.monotonic() < deadline, f"{self.name} never said {words!r}: {self.said[-3000:]}"
            await asyncio.sleep(0.02)


class Platform:
    """The surroundings of one test: starts services, sends commands, hears events."""

    def __init__(self, settings: CommonSettings, nats: NatsServer, bus: Bus, logs: Path) -> None:
        self.settings = settings
        self.paths = Paths(settings)
        self.nats = nats
        self.bus = bus
        self.events = Events()
        self.services: list[Service] = []
        self._logs = logs
        self._reader = asyncio.create_task(self.events.read(bus))

    def start(self, name: str, **environment: Any) -> Service:
        """`python -m services.<name>` with short times; `environment` changes settings."""
        s, port = self.settings, free_port()
        variables = {
            "SERVICE_TOKEN": TOKEN,
            "DATA_ROOT": str(s.data_root),
            "MODELS_ROOT": str(s.models_root),
            "ASSETS_ROOT": str(s.assets_root),
            "STORAGE_URL": s.storage_url,
            "NATS_URL": s.nats_url,
            "PORT": str(port),
            "LOG_FILES": "false",
            "OMP_NUM_THREADS": "1",
            **TIMES,
            **{key: str(value) for key, value in environment.items()},
        }
        output = self._logs / f"{name}-{len(self.services)}.log"
        with output.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", f"services.{name}"],
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
        service = Service(name, process, port, output)
        self.services.append(service)
        return service

    async def started(self, name: str, **environment: Any) -> Service:
        service = self.start(name, **environment)
        await service.wait_until_ready()
        return service

    async def send(self, command: Command, fact: str, *, seconds: float = PATIENCE) -> Any:
        """Sends a command and waits for the event that tells of its end."""
        await self.bus.send_command(command, Lane.normal)
        return await self.events.wait_for(fact, job=command.job_id, seconds=seconds)

    async def owner_of(self, job: str, services: Iterable[Service]) -> Service:
        """That one of the services which has begun the job."""
        begun = await self.events.wait_for("step_started", job=job)
        return next(service for service in services if begun.worker.endswith(f"-{service.pid}"))

    async def cancel(self, job: str) -> None:
        await self.bus.bucket("control").put(f"cancel.{job}", b"{}")

    def manifest(self, event: StepFinished) -> manifests.Manifest:
        """The committed manifest, after a check that every file it names is whole."""
        manifest = manifests.load(self.paths, event.manifest)
        assert manifests.verify(self.paths, manifest) == []
        return manifest

    def place(self, dataset: str, recordings: Iterable[Path]) -> tuple[InputFile, ...]:
        """Puts recordings where ingest leaves the originals of a dataset."""
        found = []
        uploads = self.paths.uploads(dataset)
        for number, recording in enumerate(recordings):
            sha256 = hashlib.sha256(recording.read_bytes()).hexdigest()
            extension = recording.suffix.lstrip(".")
            target = uploads.original(sha256, extension)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(recording, target)
            found.append(InputFile(sample_id=f"smp_{number}", sha256=sha256, extension=extension))
        return tuple(found)

    async def close(self) -> None:
        self._reader.cancel()
        for service in self.services:
            if service.process.poll() is None:
                service.signal(signal.SIGCONT)
                service.signal(signal.SIGTERM)
        for service in self.services:
            try:
                await asyncio.to_thread(service.process.wait, PATIENCE)
            except subprocess.TimeoutExpired:
                service.kill()


def family(pid: int) -> list[psutil.Process]:
    """The processes below `pid`, however deep."""
    return psutil.Process(pid).children(recursive=True)


async def until_gone(processes: Iterable[psutil.Process]) -> None:
    """Waits until none of the processes runs."""
    waited_for = list(processes)
    await until(lambda: not any(_runs(process) for process in waited_for))


def _runs(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def loaded_libraries(pid: int) -> str:
    """What the process has mapped into its memory."""
    return Path(f"/proc/{pid}/maps").read_text()


def resident_megabytes(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


def prepare(job: str, inputs: tuple[InputFile, ...], *, dataset: str = "anna", **changes: Any) -> PrepareDataset:
    values = {"preset": "rvc-tiny", "experiment": dataset} | changes
    return PrepareDataset(job_id=job, step=Step.preprocess, dataset=dataset, inputs=inputs, **values)


def train(job: str, prepared: ManifestRef, *, voice: str = "anna", attempt: int = 1, **options: Any) -> TrainVoice:
    values = {"preset": "rvc-tiny", "total_steps": 20} | options
    return TrainVoice(
        job_id=job,
        step=Step.train,
        attempt=attempt,
        experiment="anna",
        voice=voice,
        prepared=prepared,
        options=TrainingOptions(**values),
    )


def index(job: str, prepared: ManifestRef, *, voice: str = "anna") -> BuildIndex:
    return BuildIndex(job_id=job, step=Step.index, experiment="anna", voice=voice, prepared=prepared)


def evaluate(
    job: str, prepared: ManifestRef, trained: ManifestRef, indexed: ManifestRef, *, voice: str = "anna"
) -> EvaluateVoice:
    return EvaluateVoice(
        job_id=job,
        step=Step.evaluate,
        experiment="anna",
        voice=voice,
        prepared=prepared,
        trained=trained,
        indexed=indexed,
    )


def publish(
    job: str,
    prepared: ManifestRef,
    trained: ManifestRef,
    indexed: ManifestRef,
    evaluated: ManifestRef,
    *,
    voice: str = "anna",
) -> PublishVoice:
    return PublishVoice(
        job_id=job,
        step=Step.publish,
        experiment="anna",
        voice=voice,
        display_name="Anna",
        dataset="anna",
        inputs=(),
        prepared=prepared,
        trained=trained,
        indexed=indexed,
        evaluated=evaluated,
    )


@contextlib.asynccontextmanager
async def platform(settings: CommonSettings, nats: NatsServer, logs: Path) -> AsyncIterator[Platform]:
    """A platform whose services are all ended at the end."""
    logs.mkdir(parents=True, exist_ok=True)
    bus = await Bus.connect(settings, "preprocessor")
    await bus.ensure()
    made = Platform(settings, nats, bus, logs)
    try:
        yield made
    finally:
        await made.close()
        await bus.close()
