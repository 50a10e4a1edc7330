"""What do all services have in common as HTTP servers? Request ids, tokens, problems, health, metrics."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from types import FrameType

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.common import disks, logs, metrics, problems, tracing
from libs.common.errors import Unauthenticated
from libs.common.health import Check, health_router, say_what_is_missing
from libs.common.paths import Paths
from libs.common.places import Places
from libs.common.settings import CommonSettings

log = logs.get_logger("service")

WEBSOCKET_BYTES = 1024 * 1024  # of one message
STARTUP_FAILED = 3  # what uvicorn itself exits with
OPEN_PATHS = frozenset({"/livez", "/readyz", "/health", "/metrics"})
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


class RequestContext:
    """Gives every request an id and a trace, logs it, and counts it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        rid = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(8)}"
        logs.request_id.set(rid)
        asked = headers.get("traceparent")
        parent = asked if logs.enter_trace(asked) == asked else None
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            with tracing.span(scope["method"], "server", parent, http_request_method=scope["method"]) as span:
                await self._answer(scope, receive, send, rid, span)
        else:
            await self._answer(scope, receive, send, rid, None)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, rid: str, span: tracing.Span | None) -> None:
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-request-id", rid.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=rid):
            try:
                await self._app(scope, receive, send_with_id)
            finally:
                if scope["type"] == "http":
                    route = getattr(scope.get("route"), "path", "unmatched")
                    seconds = time.perf_counter() - started
                    method = metrics.method_label(scope["method"])
                    metrics.REQUESTS.labels(method, route, str(status or 499)).inc()
                    metrics.REQUEST_SECONDS.labels(method, route).observe(seconds)
                    if span is not None:
                        span.name(f"{method} {route}")
                        span.set(http_route=route, http_response_status__code=status or 499)
                    if route not in OPEN_PATHS:
                        milliseconds = round(1000 * seconds, 1)
                        log.info("http", method=scope["method"], path=scope["path"], status=status, ms=milliseconds)


class ServiceToken:
    """Refuses calls without the service token, except on open paths."""

    def __init__(self, app: ASGIApp, token: str, open_prefixes: tuple[str, ...]) -> None:
        self._app = app
        self._expected = f"Bearer {token}".encode()
        self._open = open_prefixes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        if path not in OPEN_PATHS and not (self._open and path.startswith(self._open)):
            given = dict(scope["headers"]).get(b"authorization", b"")
            if not hmac.compare_digest(given, self._expected):
                if scope["type"] == "websocket":
                    await send({"type": "websocket.close", "code": 4401})
                    return
                error = Unauthenticated(
                    "this inner service answers the platform's own services only",
                    actions=("Call the gateway; inner calls need the service token.",),
                )
                await problems.answer(error.problem())(scope, receive, send)
                return
        await self._app(scope, receive, send)


def create_service(
    name: str,
    settings: CommonSettings,
    *,
    routers: Sequence[APIRouter],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    checks: Sequence[Check],
    open_prefixes: tuple[str, ...] = (),
    public: bool = False,
    title: str,
    description: str = "",
) -> FastAPI:
    """An app with everything that the services share. `checks` may still grow while `lifespan` starts."""

    @asynccontextmanager
    async def told(app: FastAPI) -> AsyncIterator[None]:
        await say_what_is_missing(checks)
        async with lifespan(app):
            yield

    app = FastAPI(title=title, description=description, version="0.1.0", lifespan=told)
    app.state.settings = settings
    disks.watch(settings)
    app.state.enough = asyncio.Event()  # set when there is nothing more to do: the process ends itself
    app.state.closing = asyncio.Event()  # set when the process is asked to go: endless answers end themselves
    places = Places(settings)
    problems.install(app, places)
    app.include_router(health_router(name, checks, places))
    app.include_router(metrics.router)
    for router in routers:
        app.include_router(router)
    if not public:
        app.add_middleware(ServiceToken, token=settings.service_token.get_secret_value(), open_prefixes=open_prefixes)
    app.add_middleware(RequestContext)
    return app


def _presence(path: Path | None) -> str:
    return f"{path} ({'present' if path is not None and path.exists() else 'absent'})"


def begin(settings: CommonSettings, name: str) -> None:
    """Logs as the settings want them: the first thing that a service does, so that all it says has one form."""
    logs.configure(
        name,
        log_format=settings.log_format,
        level=settings.log_level,
        folder=Paths(settings).logs / name if settings.log_files else None,
    )


def serve(app: FastAPI, settings: CommonSettings, name: str, port: int) -> None:
    """Runs `app` until SIGTERM or SIGINT, after `begin`; the lifespan's end drains what is in hand."""
    tracing.configure(name, settings.otel_exporter_otlp_endpoint)
    log.info(
        "service.starting",
        service=name,
        port=port,
        environment=settings.environment.value,
        data_root=str(settings.data_root),
        uploads_dir=str(settings.uploads_dir),
        models_root=str(settings.models_root),
        assets_root=str(settings.assets_root),
        hubert=_presence(settings.hubert_path),
        rmvpe=_presence(settings.rmvpe_path),
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=port,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=int(settings.drain_timeout.total_seconds()),
        server_header=False,
        ws_max_size=WEBSOCKET_BYTES,
        ws_per_message_deflate=False,  # sound does not compress, and trying costs time
    )
    server = _Server(config, app)
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    tracing.shutdown()
    if not server.started:
        sys.exit(STARTUP_FAILED)


class _Server(uvicorn.Server):
    """Tells the app when it is asked to go: an endless answer would hold the process until its time is up."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.closing.set()
        super().handle_exit(sig, frame)

    async def on_tick(self, counter: int) -> bool:
        if self._app.state.enough.is_set():  # no signal: the exit status says that all went well
            self._app.state.closing.set()
            self.should_exit = True
        return await super().on_tick(counter)
