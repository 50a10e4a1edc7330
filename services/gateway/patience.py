"""How long is work done for a client? Only while it is there."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request

from services.gateway.staging import ClientGone

Result = TypeVar("Result")
LOOK_SECONDS = 0.5


async def while_there(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns or raises. Raises ClientGone, and ends it, when the client closes the connection before."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=LOOK_SECONDS)
            if await request.is_disconnected() and not task.done():
                raise ClientGone("the client closed the connection while it waited for the sound")
        return task.result()
    finally:
        if not task.done():  # inference notices, and gives the place to somebody who waits
            task.cancel()
            await asyncio.wait({task})
