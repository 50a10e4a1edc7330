"""Processes for heavy calls: kept, replaced, ended with their caller."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from libs.common.errors import DatasetEmpty, TryAgain
from libs.common.processes import end_children, in_child
from tests.waiting import PATIENCE, until


def who(number: int) -> tuple[int, int]:
    return os.getpid(), number


def refuse() -> None:
    raise DatasetEmpty("nothing here", field="inputs")


def sleep_long() -> None:
    time.sleep(60)


def end_oneself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def has_ended(pid: int) -> bool:
    """Whether a process has ended with its last thread; its first one is a zombie a moment before."""
    try:
        process = psutil.Process(pid)
        return process.status() == psutil.STATUS_ZOMBIE and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    yield
    end_children()


async def test_calls_share_a_process_that_is_not_ours() -> None:
    first, second = await in_child(who, 1), await in_child(who, 2)

    assert first[0] == second[0] != os.getpid()
    assert (first[1], second[1]) == (1, 2)


async def test_an_error_travels_with_all_that_it_says() -> None:
    with pytest.raises(DatasetEmpty) as caught:
        await in_child(refuse)

    assert (caught.value.detail, caught.value.field) == ("nothing here", "inputs")


async def test_a_process_that_was_killed_while_idle_is_replaced() -> None:
    pid, _ = await in_child(who, 1)
    psutil.Process(pid).kill()
    await until(lambda: has_ended(pid))

    other, _ = await in_child(who, 2)

    assert other != pid


async def test_a_call_whose_process_is_killed_is_to_be_tried_again() -> None:
    with pytest.raises(TryAgain):
        await in_child(end_oneself)


async def test_a_cancelled_call_ends_its_process() -> None:
    call = asyncio.create_task(in_child(sleep_long))
    children = await until(lambda: [p for p in psutil.Process().children() if "spawn_main" in " ".join(p.cmdline())])

    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call

    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []
