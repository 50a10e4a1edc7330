"""How long does a test wait? For as long as a busy machine may need: a wait is over when what it waits for has come."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 60.0  # seconds; the pauses of a machine that others use fit in, and what never comes still fails


async def until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Asks `condition`, plain or asynchronous, until its answer is true, and returns that. Raises AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"it did not come true within {seconds:g} s: {answer!r}"
        await asyncio.sleep(0.02)


def wait_until(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """The same, for tests without a loop."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"it did not come true within {seconds:g} s: {answer!r}"
        time.sleep(0.02)
    return answer
