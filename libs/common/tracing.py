"""Where was the time spent, across services? Spans for OpenTelemetry, when somebody collects them; the one door to it.

Without OTEL_EXPORTER_OTLP_ENDPOINT, or without the packages of the extra `otel`, nothing happens here: traces are
handed on from request to command to event as they came (libs/common/logs.py), and nobody is told of them.

    request ─ server span ─▶ outbox row ─ producer span ─▶ command ─ consumer span ─▶ event ─▶ next command …
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

from libs.common.logs import get_logger, within_trace

log = get_logger("tracing")

Kind = Literal["server", "producer", "consumer"]
FLUSH_MILLISECONDS = 3000


class Span(Protocol):
    """What is going on, as somebody will look at it."""

    def set(self, **attributes: str | int | float | bool) -> None:
        """Says more of it; `_` in a name stands for a dot of OpenTelemetry's, `__` for its `_`."""
        ...

    def name(self, name: str) -> None:
        """Another name, when the right one is known only afterwards."""
        ...

    def failed(self, why: str) -> None: ...


class _Nobody:
    """The span that nobody looks at."""

    def set(self, **attributes: str | int | float | bool) -> None: ...

    def name(self, name: str) -> None: ...

    def failed(self, why: str) -> None: ...


class _Open:
    """One span of OpenTelemetry."""

    def __init__(self, span: Any) -> None:
        self._span = span

    def set(self, **attributes: str | int | float | bool) -> None:
        for name, value in attributes.items():
            self._span.set_attribute(name.replace("__", "-").replace("_", ".").replace("-", "_"), value)

    def name(self, name: str) -> None:
        self._span.update_name(name)

    def failed(self, why: str) -> None:
        from opentelemetry.trace import StatusCode

        self._span.set_status(StatusCode.ERROR, why)


class _Tracing:
    """The process's provider; None while nobody collects."""

    provider: Any = None


def configure(service: str, endpoint: str) -> bool:
    """Sends spans to `endpoint`/v1/traces from now on; False when there is none, or the packages are absent."""
    if not endpoint:
        return False
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        log.warning("tracing.absent", error=str(error), extra="otel")
        return False
    # Our own and not the global one: frameworks that know OpenTelemetry would add spans of theirs.
    provider = TracerProvider(
        resource=Resource.create({"service.name": service, "service.namespace": "voicewright"}), shutdown_on_exit=False
    )
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _Tracing.provider = provider
    return True


def shutdown() -> None:
    """Sends what is left, for a moment, and stops."""
    provider, _Tracing.provider = _Tracing.provider, None
    if provider is not None:
        provider.force_flush(FLUSH_MILLISECONDS)
        provider.shutdown()


@contextmanager
def span(name: str, kind: Kind, parent: str | None, **attributes: str | int | float | bool) -> Iterator[Span]:
    """A span below `parent` (a traceparent of W3C; None begins a trace); what is sent inside carries it on.

    Without a collector nothing is changed: the trace that was entered is carried on.
    """
    if _Tracing.provider is None:
        yield _Nobody()
        return
    from opentelemetry.trace import SpanKind, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    above = propagator.extract({"traceparent": parent} if parent else {})
    tracer = _Tracing.provider.get_tracer("voicewright")
    begun = tracer.start_span(name, context=above, kind=SpanKind[kind.upper()])
    opened = _Open(begun)
    opened.set(**attributes)
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context=set_span_in_context(begun))
    try:
        with within_trace(carrier.get("traceparent")):
            yield opened
    except BaseException as error:
        opened.failed(f"{type(error).__name__}: {error}"[:300])
        raise
    finally:
        begun.end()
