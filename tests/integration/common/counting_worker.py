"""A worker process for tests that kill it: `python -m tests.integration.common.counting_worker ENVIRONMENT…`.

It counts to `STEPS` in small steps, keeps what it has counted in its attempt folder, goes on from earlier attempts, and
logs every step it takes, so that a test sees who did what. Behaviour comes from the environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from libs.common import logs
from libs.common.bus import Bus
from libs.common.errors import StorageFull, WorkFailed
from libs.common.events import DatasetPrepared, PrepareDataset
from libs.common.paths import Paths
from libs.common.settings import ScaledSettings
from libs.common.work import Done, Work
from libs.common.worker import Worker

STEPS = int(os.environ.get("STEPS", "20"))
STEP_SECONDS = float(os.environ.get("STEP_SECONDS", "0.1"))
SLOTS = int(os.environ.get("SLOTS", "1"))
HOLD_AT = int(os.environ.get("HOLD_AT", STEPS))  # it counts so far, and on when the test lets it
TRACE = Path(os.environ["TRACE"])
GO_ON = TRACE.with_suffix(".go")


def trace(line: str) -> None:
    with TRACE.open("a") as file:
        file.write(f"{os.getpid()} {line}\n")


def count(work: Work[PrepareDataset]) -> list[Path]:
    """Counts on from the newest earlier attempt; every number becomes a file, whole."""
    folder = work.folder
    for earlier in work.earlier_folders:
        for old in earlier.glob("[0-9]*"):
            new = folder / old.name
            if not new.exists():
                os.link(old, new)
    import time

    for n in range(STEPS):
        target = folder / f"{n:03d}"
        if target.exists():
            continue
        work.check()
        while n >= HOLD_AT and not GO_ON.exists():
            time.sleep(0.01)
            work.check()
        time.sleep(STEP_SECONDS)
        part = folder / f".{n:03d}.part"
        part.write_text(str(n))
        part.rename(target)
        trace(f"step {n}")
        work.mark(str(n))
        work.report((n + 1) / STEPS, done=n + 1, total=STEPS)
    return sorted(folder.glob("[0-9]*"))


async def on_prepare(work: Work[PrepareDataset]) -> Done:
    mode = work.command.f0_method
    trace(f"begin {work.token}")
    if mode == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if mode == "full":
        raise StorageFull("the test's disk is full")
    if mode == "refuse":
        raise WorkFailed("the test refuses")
    if mode == "odd":
        raise WorkFailed("half a letter \ud800, NUL \0 " + "and very long " * 100_000, files=["x"] * 500_000)
    if mode == "crash":
        raise RuntimeError("the test breaks")
    if mode == "full-once" and not work.earlier_folders:
        _ = work.folder
        raise StorageFull("the test's disk is full once")
    files = await asyncio.to_thread(count, work)
    return Done(
        event=DatasetPrepared,
        fields={
            "dataset": work.command.dataset,
            "pieces": len(files),
            "seconds": 1.0,
            "voiced_ratio": 0.5,
            "sample_rate": 32000,
            "content_encoder": {"name": "none", "sha256": "0"},
            "f0_method": "none" if mode != "huge" else "x" * 2**20,
        },
        files=files,
    )


async def finish(command: Any, manifest: Any, revision: int) -> None:
    trace(f"finish {manifest.token}")
    trace(f"place {revision}")


async def main() -> None:
    settings = ScaledSettings()
    logs.configure("preprocessor", level="INFO")
    bus = await Bus.connect(settings, "preprocessor")
    await bus.ensure()
    worker = Worker(bus, settings, Paths(settings), slots=SLOTS, info={"device": "test"})
    worker.on(PrepareDataset, on_prepare, finish)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await worker.start()
    trace("ready")
    ends = [asyncio.create_task(event.wait()) for event in (stop, worker.has_enough)]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    await worker.drain()
    await bus.close()


if __name__ == "__main__":
    asyncio.run(main())
