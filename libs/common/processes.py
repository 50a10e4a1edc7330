"""How does a light service do heavy work? In processes of their own, which end with it.

A process that has loaded the heavy libraries is kept for a while, because loading them takes longer than most calls.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from typing import TypeVar

from libs.common.errors import TryAgain, WorkFailed

T = TypeVar("T")
PARENT_CHECK_SECONDS = 0.5
KEPT_SECONDS = 60.0

SPAWN: SpawnContext = multiprocessing.get_context("spawn")


def share_cores() -> None:
    """Lets the compute threads of this process and its children sleep while they wait; call before torch is imported.

    By default OpenMP's threads spin, which on a busy machine keeps the cores from those that have work: ten times
    slower with twice as many threads as cores. A value that the environment gives is left alone.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def leave_with_parent(parent: int) -> None:
    """Ends this process when `parent` is gone: a killed service leaves nothing that computes on.

    A watching thread instead of a parent-death signal, because that one fires when the parent's *thread* ends.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


class _Child:
    """One process, for one call at a time."""

    def __init__(self) -> None:
        self.executor = ProcessPoolExecutor(1, mp_context=SPAWN, initializer=leave_with_parent, initargs=(os.getpid(),))
        self.expiry: asyncio.TimerHandle | None = None

    @property
    def is_alive(self) -> bool:
        # A pipe tells it: `Process.is_alive` says yes while the executor's thread collects a process that is dead.
        ends = [process.sentinel for process in list((self.executor._processes or {}).values())]
        return not self.executor._broken and not multiprocessing.connection.wait(ends, timeout=0)

    def kill(self) -> None:
        """Ends the process, and with it the call that it is in."""
        # Only the executor knows its processes; from Python 3.14 on it has kill_workers for this.
        for process in list((self.executor._processes or {}).values()):
            process.kill()
        self.executor.shutdown(wait=False, cancel_futures=True)


async def end_pool(executor: ProcessPoolExecutor, patience: float) -> None:
    """Ends a pool. Processes that are not done with what they do after `patience` seconds are killed."""
    # The executor forgets its processes when it shuts down.
    processes = list((executor._processes or {}).values())
    ending = asyncio.ensure_future(asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True))
    if not (await asyncio.wait({ending}, timeout=patience))[0]:
        for process in processes:
            process.kill()
    await ending


_idle: list[_Child] = []


async def in_child(call: Callable[..., T], *arguments: object) -> T:
    """`call(*arguments)` in a process of its own; what it imports never enters this one.

    Raises what the call raises, and TryAgain when the process was ended from outside. Cancelling ends the process.
    """
    child = _take()
    loop = asyncio.get_running_loop()
    try:
        result = await loop.run_in_executor(child.executor, call, *arguments)
    except BrokenProcessPool as error:
        child.kill()
        raise TryAgain(
            WorkFailed(
                f"the process for {call.__name__} was ended from outside, probably for want of memory",
                actions=("Give the service more memory.",),
            )
        ) from error
    except asyncio.CancelledError:
        child.kill()
        raise
    except BaseException:
        _keep(child, loop)
        raise
    _keep(child, loop)
    return result


def _take() -> _Child:
    """A kept process, or a new one; one that was ended while it waited (memory ran out) costs no call."""
    while _idle:
        child = _idle.pop()
        if child.expiry is not None:
            child.expiry.cancel()
        if child.is_alive:
            return child
        child.kill()
    return _Child()


def _keep(child: _Child, loop: asyncio.AbstractEventLoop) -> None:
    def expire() -> None:
        with contextlib.suppress(ValueError):
            _idle.remove(child)
        child.kill()

    child.expiry = loop.call_later(KEPT_SECONDS, expire)
    _idle.append(child)


def end_children() -> None:
    """Ends the processes that are kept, for a service that goes."""
    while _idle:
        child = _idle.pop()
        if child.expiry is not None:
            child.expiry.cancel()
        child.kill()
