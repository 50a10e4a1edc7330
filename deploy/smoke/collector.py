"""Who takes the traces while the stacks are tried? A server that keeps the names of the spans it is sent.

`POST /v1/traces` is OTLP over HTTP in protobuf; `GET /traces` answers `{trace id: {service: [names of spans]}}`.
Needs the packages of the extra `otel`, which the images hold. It keeps everything and forgets nothing: not for use.
"""

from __future__ import annotations

import gzip
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PORT = 4318
"""Where collectors listen for OTLP over HTTP."""


class Traces:
    """What was sent so far."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[str, dict[str, list[str]]] = {}

    def add(self, body: bytes) -> None:
        """Keeps one export. Raises DecodeError for anything else."""
        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        with self._lock:
            for resource in request.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    of_trace = self._found.setdefault(span.trace_id.hex(), {})
                    of_trace.setdefault(names.get("service.name", ""), []).append(span.name)

    def as_json(self) -> bytes:
        with self._lock:
            return json.dumps(self._found).encode()


class Handler(BaseHTTPRequestHandler):
    """The two addresses; anything else is 404, what is no export 400."""

    traces = Traces()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(self._taken(body) if self.path == "/v1/traces" else 404)

    def do_GET(self) -> None:
        if self.path == "/traces":
            self._answer(200, self.traces.as_json())
        else:
            self._answer(404)

    def _taken(self, body: bytes) -> int:
        """The status of one export."""
        try:
            self.traces.add(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        except (DecodeError, OSError):
            return 400
        return 200

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


if __name__ == "__main__":
    every = "0.0.0.0"  # noqa: S104 - of its container, which has no port that others reach
    ThreadingHTTPServer((every, int(os.environ.get("PORT", PORT))), Handler).serve_forever()
