"""How does a file go out over HTTP, whole or in ranges? As the framework sends it; refusals are problem details."""

from __future__ import annotations

from fastapi.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from libs.common.errors import RangeNotSatisfiable
from libs.common.problems import answer


class _Refused(Exception):
    """The framework is about to refuse the range, in plain text."""


class RangedFile(FileResponse):
    """A file; a `Range` that it does not have, or that is none, is answered with 416 and the file's size."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def look(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                raise _Refused
            await send(message)

        try:
            await super().__call__(scope, receive, look)
        except _Refused:
            size = int(self.headers["content-length"])
            error = RangeNotSatisfiable(f"the file has {size} bytes, and Range asks for others", size=size)
            await answer(error.problem(), headers={"Content-Range": f"bytes */{size}"})(scope, receive, send)
