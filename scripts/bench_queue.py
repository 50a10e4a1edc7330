"""What does the broker work for each thing that a worker does? `python -m scripts.bench_queue`

One nats-server of its own with JetStream, asked through the platform's own door. Told is the server's processor time
for each operation, which other work on the machine changes little, and what that comes to for many workers.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil

from libs.common.bus import Bus
from libs.common.events import StepProgress, ValidateDataset
from libs.common.jobs import Lane, Step
from libs.common.settings import CommonSettings
from scripts.processes import free_port

COUNT = 20_000  # the kernel tells processor time in hundredths of a second
AT_ONCE = 50
IDLE_SECONDS = 5.0


def measure(work: Path) -> dict[str, object]:
    """Microseconds of the broker's processor time for each operation; the broker's store lies in `work`."""
    port = free_port()
    program = shutil.which("nats-server") or "/usr/sbin/nats-server"
    command = [program, "-js", "-a", "127.0.0.1", "-p", str(port), "-sd", str(work / "nats")]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return asyncio.run(_measure(work, f"nats://127.0.0.1:{port}", psutil.Process(server.pid)))
    finally:
        server.terminate()
        server.wait(10)


async def _measure(work: Path, url: str, server: psutil.Process) -> dict[str, object]:
    settings = CommonSettings(service_token="of-a-bench-alone", nats_url=url, data_root=work)  # noqa: S106
    bus = await Bus.connect(settings, "ingest")
    await bus.ensure()
    queue = bus.commands(Lane.normal)
    await queue.ensure()
    leases, control = bus.bucket("leases"), bus.bucket("control")
    revisions = {n: await leases.create(f"job_{n}.train", b"x" * 200) for n in range(AT_ONCE)}

    async def send(n: int) -> None:
        command = ValidateDataset(job_id=f"j{n}", step=Step.validate, experiment="a", dataset="a", inputs=())
        await bus.send_command(command, Lane.normal)

    async def take(_: int) -> None:
        delivery = await queue.take(timedelta(seconds=5))
        assert delivery is not None
        await delivery.ack()

    async def renew(n: int) -> None:
        key = n % AT_ONCE
        revisions[key] = await leases.update(f"job_{key}.train", b"x" * 200, revisions[key])

    async def look(n: int) -> None:
        await control.get(f"cancel.job_{n}")

    async def tell(n: int) -> None:
        progress = StepProgress(job_id=f"j{n % 100}", step=Step.train, fraction=n / COUNT, worker="w", token=1, done=n)
        await bus.publish_progress(progress)
        if n % AT_ONCE == 0:
            await bus._nc.flush()

    told: dict[str, Any] = {}
    for name, do, at_once in (
        ("command sent", send, AT_ONCE),
        ("command taken and acknowledged", take, 1),
        ("lease renewed", renew, AT_ONCE),
        ("look for a cancel", look, AT_ONCE),
        ("progress told", tell, 1),
    ):
        told[name] = await _each(do, at_once, server)
    told["empty look into a lane"] = await _idle(settings, server)
    await bus.close()
    return {"broker": _version(server), "operations": told, "computed": computed(told)}


async def _each(do: Callable[[int], Awaitable[None]], at_once: int, server: psutil.Process) -> dict[str, float]:
    """`COUNT` operations, so many at once; one's key is never asked for twice at once."""
    before, began = _worked(server), time.perf_counter()
    for first in range(0, COUNT, at_once):
        await asyncio.gather(*(do(n) for n in range(first, first + at_once)))
    return _told(server, before, began, COUNT)


async def _idle(settings: CommonSettings, server: psutil.Process) -> dict[str, float]:
    """Workers that ask their three lanes in turn and get nothing, as idle ones do."""
    count = 0
    buses = [await Bus.connect(settings, "trainer") for _ in range(20)]
    queues = [[bus.commands(lane) for lane in Lane] for bus in buses]
    for lanes in queues:
        for queue in lanes:
            await queue.ensure()
    before, began = _worked(server), time.perf_counter()

    async def ask(lanes: list[Any]) -> int:
        asked = 0
        while time.perf_counter() - began < IDLE_SECONDS:
            for queue in lanes:
                await queue.take(settings.poll_interval)
                asked += 1
        return asked

    count = sum(await asyncio.gather(*(ask(lanes) for lanes in queues)))
    told = _told(server, before, began, count)
    for bus in buses:
        await bus.close()
    return told


def _worked(server: psutil.Process) -> float:
    times = server.cpu_times()
    return float(times.user + times.system)


def _told(server: psutil.Process, before: float, began: float, count: int) -> dict[str, float]:
    seconds = time.perf_counter() - began
    return {"broker_us": round(1e6 * (_worked(server) - before) / count, 1), "per_second": round(count / seconds)}


def computed(told: dict[str, dict[str, float]], workers: int = 1000) -> dict[str, float]:
    """The broker's cores for so many workers with the shipped settings: all busy, all idle. Computed, not measured."""
    shipped = CommonSettings(service_token="of-a-bench-alone")  # noqa: S106
    each = {
        "lease renewed": 1 / shipped.heartbeat.total_seconds(),
        "look for a cancel": 1 / shipped.cancel_poll.total_seconds(),
        "progress told": 1 / 0.2,  # the most: libs/common/worker/keeping.py tells five times a second
    }
    busy = sum(rate * told[name]["broker_us"] / 1e6 for name, rate in each.items())
    idle = told["empty look into a lane"]["broker_us"] / 1e6 / shipped.poll_interval.total_seconds()
    return {"workers": workers, "cores_all_busy": round(workers * busy, 2), "cores_all_idle": round(workers * idle, 2)}


def _version(server: psutil.Process) -> str:
    return subprocess.run([server.exe(), "--version"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    with tempfile.TemporaryDirectory() as work:
        print(json.dumps(measure(Path(work)), indent=1))


if __name__ == "__main__":
    main()
