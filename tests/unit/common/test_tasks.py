"""Do background tasks end, also one that swallows the first cancel?"""

from __future__ import annotations

import asyncio

import pytest

from libs.common.tasks import end, together


async def stubborn(ended: list[str], swallowed: int = 1) -> None:
    """A loop in which cancels get lost, as in a `wait_for` whose result is just there."""
    try:
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if not swallowed:
                    raise
                swallowed -= 1
    finally:
        ended.append("over")


async def test_a_task_that_swallows_a_cancel_is_ended_all_the_same() -> None:
    ended: list[str] = []
    tasks = [asyncio.create_task(stubborn(ended, swallowed=n)) for n in (0, 1, 2)]
    await asyncio.sleep(0)

    async with asyncio.timeout(60):
        await end(tasks)

    assert ended == ["over"] * 3


async def test_when_one_of_several_fails_the_others_end_and_its_error_is_raised() -> None:
    ended: list[str] = []

    async def fails() -> None:
        await asyncio.sleep(0.01)
        raise ValueError("the reason")

    async with asyncio.timeout(60):
        with pytest.raises(ValueError, match="the reason"):
            await together(lambda: stubborn(ended), fails)

    assert ended == ["over"]


async def test_several_that_run_together_end_together_when_cancelled() -> None:
    ended: list[str] = []
    task = asyncio.create_task(together(lambda: stubborn(ended), lambda: stubborn(ended)))
    await asyncio.sleep(0.01)

    async with asyncio.timeout(60):
        await end([task])

    assert ended == ["over", "over"]
