"""How does an inner service's answer reach the client? As it comes, without being held."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from libs.common.logs import get_logger
from services.gateway.inner import InnerService

log = get_logger("gateway.streaming")

_KEPT = (
    "content-type",
    "content-length",
    "content-range",
    "accept-ranges",
    "etag",
    "last-modified",
    "content-disposition",
)


class ForwardedResponse(StreamingResponse):
    """Streams an inner answer and closes it afterwards, also when the client goes away."""

    def __init__(self, response: httpx.Response, headers: dict[str, str], close: Callable[[], Awaitable[None]]) -> None:
        super().__init__(self._pieces(response), status_code=response.status_code, headers=headers)
        self._close = close

    @staticmethod
    async def _pieces(response: httpx.Response) -> AsyncIterator[bytes]:
        async for piece in response.aiter_raw():
            yield piece

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except httpx.TransportError as error:
            # An answer that is left without its end is a connection that breaks: nobody takes it for the whole.
            log.warning("inner.broken_off", error=f"{type(error).__name__}: {error}")
        finally:
            await self._close()


async def forward(
    service: InnerService,
    method: str,
    path: str,
    *,
    json: Any = None,
    params: dict[str, str] | None = None,
    headers: dict[str, str] | None = None,
    timeout: float | None = None,
    keep: tuple[str, ...] = (),
    afterwards: Callable[[], Awaitable[None]] | None = None,
) -> ForwardedResponse:
    """The answer of an inner service, to be streamed on; raises as `InnerService.stream`.

    `keep` names headers that pass besides those of the content; `afterwards` is called when all has been sent, or now
    when the call fails.
    """
    async with AsyncExitStack() as stack:
        if afterwards is not None:
            stack.push_async_callback(afterwards)
        response = await stack.enter_async_context(
            service.stream(method, path, json=json, params=params, headers=headers, timeout=timeout)
        )
        passed = {name: response.headers[name] for name in (*_KEPT, *keep) if name in response.headers}
        return ForwardedResponse(response, passed, stack.pop_all().aclose)
