"""How does a light service do heavy work? In processes of their own, which end with it."""

from __future__ import annotations

import asyncio
import multiprocessing
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

SPAWN: SpawnContext = multiprocessing.get_context("spawn")


def leave_with_parent(parent: int) -> None:
    """Ends this process when `parent` is gone: a killed service leaves nothing that computes on.

    A watching thread instead of a parent-death signal, because that one fires when the parent's *thread* ends.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_CHECK_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


async def in_child(call: Callable[..., T], *arguments: object) -> T:
    """`call(*arguments)` in a fresh process; what it imports never enters this one.

    Raises what the call raises, and TryAgain when the process was ended from outside.
    """
    executor = ProcessPoolExecutor(1, mp_context=SPAWN, initializer=leave_with_parent, initargs=(os.getpid(),))
    try:
        return await asyncio.get_running_loop().run_in_executor(executor, call, *arguments)
    except BrokenProcessPool as error:
        raise TryAgain(
            WorkFailed(
                f"the process for {call.__name__} was ended from outside, probably for want of memory",
                actions=("Give the service more memory.",),
            )
        ) from error
    finally:
        await asyncio.to_thread(executor.shutdown, wait=True, cancel_futures=True)
