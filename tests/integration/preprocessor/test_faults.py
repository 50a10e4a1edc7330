"""The preprocessor killed, asked to go, cancelled, and out of space, each in the middle of a dataset."""

from __future__ import annotations

import asyncio
import resource
import signal
from pathlib import Path

import psutil
import pytest

from libs.common.events import InputFile
from libs.common.jobs import Lane
from tests.factories_audio import make_recordings
from tests.integration.voice_services.platform import (
    LEASES_RUN_OUT,
    NOTHING_RUNS_OUT,
    Platform,
    family,
    prepare,
    until_gone,
)
from tests.waiting import PATIENCE, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def attempt(here: Platform, token: int, job: str = "job_1") -> Path:
    return here.paths.experiment("anna").step(job, "preprocess").attempt(token)


def finished(here: Platform, token: int) -> list[str]:
    """The recordings that an attempt has prepared wholly."""
    return sorted(note.stem for note in (attempt(here, token) / ".prepared").glob("*.json"))


def pieces_of(folder: Path, recordings: list[str]) -> dict[str, tuple[int, int]]:
    """Inode and time of change of every file of these recordings."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in folder.glob("[0-9]*/*")
        if path.name.split("_")[0] in recordings
    }


@pytest.fixture
def inputs(here: Platform, tmp_path: Path) -> tuple[InputFile, ...]:
    return here.place("anna", make_recordings(tmp_path / "in", 6, 10.0))


async def test_a_killed_preparation_goes_on_where_it_stopped(here: Platform, inputs: tuple[InputFile, ...]) -> None:
    first = await here.started("preprocessor", **LEASES_RUN_OUT, PREPROCESS_PROCESSES=1)
    await here.bus.send_command(prepare("job_1", inputs), Lane.normal)
    await until(lambda: len(finished(here, 1)) >= 2)
    children = family(first.pid)

    first.kill()
    await until_gone(children)
    done = finished(here, 1)
    before = pieces_of(attempt(here, 1), done)
    here.start("preprocessor", **LEASES_RUN_OUT, PREPROCESS_PROCESSES=1)
    event = await here.events.wait_for("prepared", seconds=120)

    assert children
    assert 2 <= len(done) < 6
    assert here.manifest(event).token == 2
    assert pieces_of(attempt(here, 2), done) == before
    recordings = here.manifest(event).data["recordings"]
    assert sorted(str(r["index"]) for r in recordings if r["reused"]) == done
    assert len(recordings) == 6


async def test_sigterm_hands_the_dataset_over_at_once(here: Platform, inputs: tuple[InputFile, ...]) -> None:
    both = [await here.started("preprocessor", **NOTHING_RUNS_OUT, PREPROCESS_PROCESSES=1) for _ in range(2)]
    await here.bus.send_command(prepare("job_1", inputs), Lane.normal)
    first = await here.owner_of("job_1", both)
    await until(lambda: len(finished(here, 1)) >= 1)

    first.signal(signal.SIGTERM)
    await here.events.wait_for("step_started", count=2)
    ended = await asyncio.to_thread(first.process.wait, PATIENCE)
    event = await here.events.wait_for("prepared", seconds=120)

    assert ended in (0, -signal.SIGTERM)
    assert here.manifest(event).token == 2
    assert any(r["reused"] for r in here.manifest(event).data["recordings"])
    assert here.events.of("step_delayed") == []


async def test_a_cancelled_preparation_ends_and_leaves_no_result(here: Platform, inputs: tuple[InputFile, ...]) -> None:
    service = await here.started("preprocessor", PREPROCESS_PROCESSES=1)
    await here.bus.send_command(prepare("job_1", inputs), Lane.normal)
    await until(lambda: len(finished(here, 1)) >= 1)

    await here.cancel("job_1")
    await here.events.wait_for("step_cancelled")

    assert here.events.of("prepared") == []
    assert not (here.paths.experiment("anna").folder / "filelist.txt").exists()
    other = await here.send(prepare("job_2", inputs[:1]), "prepared", seconds=90)
    assert other.pieces > 0
    assert service.process.poll() is None


async def test_a_full_disk_delays_the_dataset_until_there_is_room(
    here: Platform, inputs: tuple[InputFile, ...]
) -> None:
    service = await here.started("preprocessor", RETRY_DELAYS="5,5,5", PREPROCESS_PROCESSES=1)
    psutil.Process(service.pid).rlimit(resource.RLIMIT_FSIZE, (60_000, -1))
    await here.bus.send_command(prepare("job_1", inputs[:2]), Lane.normal)

    delayed = await here.events.wait_for("step_delayed", seconds=60)
    for process in [psutil.Process(service.pid), *family(service.pid)]:
        process.rlimit(resource.RLIMIT_FSIZE, (-1, -1))
    event = await here.events.wait_for("prepared", seconds=120)

    assert delayed.problem["code"] == "storage_full"
    assert delayed.problem["suggested_actions"]
    assert here.manifest(event).data["recordings"]


async def test_a_preparation_that_hangs_is_ended_and_goes_on_at_the_next_try(
    here: Platform, inputs: tuple[InputFile, ...]
) -> None:
    # The limit is what the test takes, about a minute: three recordings on a busy machine have to be done well within.
    service = await here.started("preprocessor", PREPROCESS_PROCESSES=1, STEP_TIMEOUT_PREPROCESS="50")
    await here.bus.send_command(prepare("job_1", inputs[:3]), Lane.normal)
    await until(lambda: len(finished(here, 1)) >= 1)
    children = [process for process in family(service.pid) if "spawn_main" in " ".join(process.cmdline())]
    hanging = max(children, key=lambda process: process.create_time())  # the older one waits for a next plan
    hanging.suspend()

    event = await here.events.wait_for("prepared", seconds=240)

    (delayed,) = here.events.of("step_delayed")
    assert delayed.problem["code"] == "step_timed_out"
    assert delayed.problem["setting"] == "STEP_TIMEOUT_PREPROCESS"
    assert here.manifest(event).token == 2
    assert not hanging.is_running()
