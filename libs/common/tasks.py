"""How do background tasks end for sure? On Python 3.11 a cancel that meets a finished `wait_for` is swallowed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

_AGAIN = 0.2


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks, again and again, until all are over. What they raised is not raised here."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=_AGAIN)
        for task in done:
            if not task.cancelled():
                task.exception()  # looked at, so that asyncio does not complain of it


async def together(*work: Callable[[], Awaitable[None]]) -> None:
    """Runs all until the first one ends or raises, which is raised here; then, and when cancelled, ends the others."""
    tasks = [asyncio.ensure_future(_as_coroutine(each)) for each in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        ending = asyncio.ensure_future(end(tasks))
        while not ending.done():
            with contextlib.suppress(asyncio.CancelledError):  # it is ending already
                await asyncio.shield(ending)


async def _as_coroutine(work: Callable[[], Awaitable[None]]) -> None:
    await work()
