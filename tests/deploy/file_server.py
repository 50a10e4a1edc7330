"""A web server that misbehaves as real ones do, for tests of downloads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one path answers. `breaks`: after how many bytes each of the next answers ends, the first one first.

    `statuses`: what the next answers are instead. `etag`: '' for none. `moved_to`: a redirect.
    """

    body: bytes = b""
    etag: str = '"first"'
    ranges: bool = True
    lengths: bool = True
    breaks: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    moved_to: str = ""
    first_byte: int = 0


class FileServer:
    """`files`: how each path answers; `asked`: the requests, each with its path and headers."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.files: dict[str, Behaviour] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []

    def ranges(self) -> list[str | None]:
        """The `Range` of each request that was made."""
        return [headers.get("Range") for _, headers in self.asked]


@contextmanager
def serving() -> Iterator[FileServer]:
    """The server on a port of its own."""
    found = FileServer("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found.asked.append((self.path, dict(self.headers)))
            file = found.files.get(self.path)
            self.close_connection = True
            if file is None or file.statuses or file.moved_to:
                self.send_response(404 if file is None else file.statuses.pop(0) if file.statuses else 302)
                if file is not None and file.moved_to:
                    self.send_header("Location", file.moved_to)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            asked = self.headers.get("Range", "")
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
            part = file.ranges and bool(asked) and self.headers.get("If-Range") in (None, file.etag)
            if part and start >= len(file.body):
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = file.body[start:] if part else file.body
            self.send_response(206 if part else 200)
            if part:
                begin = start + file.first_byte
                self.send_header("Content-Range", f"bytes {begin}-{len(file.body) - 1}/{len(file.body)}")
            if file.etag:
                self.send_header("ETag", file.etag)
            if file.lengths:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: file.breaks.pop(0)] if file.breaks else body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
