"""Is this the same upload again? A fingerprint of a body, taken while it passes through; the body is never held."""

from __future__ import annotations

import asyncio
import hashlib
import re
from contextlib import aclosing

from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.types import Message

from libs.common.errors import TooLarge
from services.gateway.inner_upload import UploadStalled
from services.gateway.staging import ClientGone

_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,200})"|([^\s;"]{1,200}))""", re.I)


class BodyPrint:
    """SHA-256 over what lies between the boundaries of a form, each part followed by its length.

    Clients make up a boundary for each request; names, file names, types and contents of the parts, and their order,
    are the same when a request is repeated. A body that is no form is one part.
    """

    def __init__(self, content_type: str) -> None:
        found = _BOUNDARY.search(content_type)
        self._mark = b"--" + (found[1] or found[2]).encode("latin-1", "replace") if found else b""
        self._digest = hashlib.sha256()
        self._length = 0
        self._kept = b""
        self.is_whole = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes. A boundary may be cut by the end of a chunk, so what could begin one waits for the next."""
        if not self._mark:
            self._take(chunk)
            return
        *parts, rest = (self._kept + chunk).split(self._mark)
        for part in parts:
            self._take(part)
            self._end_part()
        split = max(0, len(rest) - len(self._mark) + 1)
        self._take(rest[:split])
        self._kept = rest[split:]

    def finish(self) -> None:
        """The body is over."""
        self._take(self._kept)
        self._end_part()
        self._kept = b""
        self.is_whole = True

    def hexdigest(self) -> str:
        """64 characters; of a whole body only."""
        return self._digest.hexdigest()

    def _take(self, data: bytes) -> None:
        self._digest.update(data)
        self._length += len(data)

    def _end_part(self) -> None:
        self._digest.update(self._length.to_bytes(8, "big"))
        self._length = 0

    def watch(self, request: Request) -> Request:
        """The same request; whoever reads its body feeds this."""

        async def receive() -> Message:
            message = await request.receive()
            if message["type"] == "http.request" and not self.is_whole:
                self.feed(message.get("body", b""))
                if not message.get("more_body", False):
                    self.finish()
            return message

        return Request(request.scope, receive)

    async def read(self, request: Request, limit: int, idle: float) -> str:
        """The fingerprint of a body that nobody else reads.

        Raises TooLarge beyond `limit` bytes, UploadStalled when nothing comes for `idle` seconds, ClientGone.
        """
        received = 0
        try:
            async with aclosing(self.watch(request).stream()) as stream:
                while not self.is_whole:
                    received += len(await asyncio.wait_for(anext(stream), idle))
                    if received > limit:
                        raise TooLarge(f"the request is larger than {limit / 1e6:g} MB", limit_bytes=limit)
        except TimeoutError:
            raise UploadStalled(f"nothing was received for {idle:g} s") from None
        except ClientDisconnect:
            raise ClientGone("the client closed the connection while it was sending") from None
        return self.hexdigest()
