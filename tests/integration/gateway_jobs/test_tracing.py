"""Is a job one trace, from the request over the broker to the worker and on, at a collector that speaks OTLP?"""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from libs.common import tracing
from libs.common.bus import Bus
from libs.common.events import DatasetValidated, ValidateDataset
from libs.common.paths import Paths
from libs.common.work import Done, Work
from libs.common.worker import Worker
from services.gateway.settings import GatewaySettings
from tests.integration.gateway_jobs.conftest import House
from tests.waiting import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PROJECT = Path(__file__).parents[3]


@dataclass
class Collector:
    """An HTTP server that takes OTLP's protobuf, as a collector does."""

    url: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)

    def of(self, trace: str) -> dict[str, Span]:
        return {span.name: span for _, span in self.spans if span.trace_id.hex() == trace}


@pytest.fixture
def collector() -> Iterator[Collector]:
    told = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = ExportTraceServiceRequest()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf":
                request.ParseFromString(body)
            for resource in request.resource_spans:
                (name,) = (a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
                told.spans += [(name, span) for scope in resource.scope_spans for span in scope.spans]
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield told
    tracing.shutdown()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
async def ingest(settings: GatewaySettings) -> AsyncIterator[None]:
    """A real worker of ingest that finds everything in order."""

    async def validate(work: Work[ValidateDataset]) -> Done:
        return Done(DatasetValidated, {"dataset": work.command.dataset, "seconds": 70.0, "recordings": 2})

    bus = await Bus.connect(settings, "ingest")
    await bus.ensure()
    worker = Worker(bus, settings, Paths(settings), slots=1, info={"device": "cpu"})
    worker.on(ValidateDataset, validate)
    await worker.start()
    yield
    await worker.drain()
    await bus.close()


async def train(house: House, traceparent: str | None) -> str:
    """A job whose first step is done; returns its id."""
    anna = await house.person()
    if traceparent:
        anna.http.headers["traceparent"] = traceparent
    job = await house.train(anna, await house.dataset(anna))
    anna.http.headers.pop("traceparent", None)
    await house.wait(anna, job["id"], lambda one: one["phase"] == "preprocess")
    await house.until_all_is_sent()
    return str(job["id"])


async def test_a_job_is_one_trace_from_the_request_to_the_worker_and_the_next_command(
    house: House, ingest: None, collector: Collector
) -> None:
    assert tracing.configure("gateway", collector.url)

    job = await train(house, f"00-{TRACE}-00f067aa0ba902b7-01")

    def spans() -> dict[str, Span] | None:
        tracing._Tracing.provider.force_flush()
        found = collector.of(TRACE)
        return found if "send PrepareDataset" in found and "work validate" in found else None

    found = await until(spans)
    request, sent, worked = (found[n] for n in ("POST /api/v1/training/jobs", "send ValidateDataset", "work validate"))
    assert request.parent_span_id.hex() == "00f067aa0ba902b7"
    assert sent.parent_span_id == request.span_id
    assert worked.parent_span_id == sent.span_id
    assert (request.kind, sent.kind, worked.kind) == (
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_PRODUCER,
        Span.SPAN_KIND_CONSUMER,
    )
    told = {a.key: a.value.string_value for a in worked.attributes}
    assert told == {
        "voicewright.job_id": job,
        "voicewright.outcome": "done",
        "messaging.destination.name": "cmd.ingest.validate.normal",
    }
    answered = {a.key: a.value for a in request.attributes}
    assert answered["http.response.status_code"].int_value == 202
    assert {name for name, _ in collector.spans} == {"gateway"}


async def test_without_a_callers_trace_a_request_begins_one(house: House, collector: Collector) -> None:
    tracing.configure("gateway", collector.url)

    async with httpx.AsyncClient(base_url=house.url, trust_env=False) as client:
        assert (await client.get("/api/v1/version")).status_code == 200
        assert (await client.get("/livez")).status_code == 200
    tracing.shutdown()

    ((_, span),) = collector.spans
    assert span.name == "GET /api/v1/version"
    assert span.parent_span_id == b""


async def test_without_a_collector_a_trace_is_handed_on_and_nobody_is_told(
    house: House, ingest: None, bus: Bus, collector: Collector
) -> None:
    assert not tracing.configure("gateway", "")
    given = f"00-{TRACE}-00f067aa0ba902b7-01"

    await train(house, given)

    (state,) = [s for s in (await bus._js.get_last_msg("COMMANDS", "cmd.preprocessor.prepare.normal"),) if s.data]
    assert f'"traceparent":"{given}"' in (state.data or b"").decode()
    assert collector.spans == []


async def test_a_collector_that_is_away_holds_nobody_up(house: House, ingest: None) -> None:
    assert tracing.configure("gateway", "http://127.0.0.1:1")

    assert await train(house, None)

    tracing.shutdown()


def test_without_the_packages_the_services_start_and_say_so() -> None:
    code = (
        "import sys; sys.modules['opentelemetry.sdk.trace'] = None\n"
        "from libs.common import tracing\n"
        "assert not tracing.configure('x', 'http://127.0.0.1:1')\n"
        "with tracing.span('x', 'server', None) as span: span.set(a=1)\n"
    )

    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True)

    assert run.returncode == 0, run.stderr
    assert "tracing.absent" in run.stdout + run.stderr


def test_nothing_of_opentelemetry_is_loaded_before_somebody_collects() -> None:
    code = "import sys, services.gateway.app; print([m for m in sys.modules if m.startswith('opentelemetry.sdk')])"

    run = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)

    assert run.stdout.strip() == "[]"
