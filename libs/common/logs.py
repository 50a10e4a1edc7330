"""What happened? Logs are events with fields; the job and the request come along by context."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import re
import secrets
import sys
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from libs.common.log_files import LogFile
from libs.common.secrecy import without_secrets

request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="")
_traceparent: contextvars.ContextVar[str] = contextvars.ContextVar("traceparent", default="")

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose calls read `log.info("training.step", step=1200, loss=0.41)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextlib.contextmanager
def bind_job(job_id: str, **fields: Any) -> Iterator[None]:
    """Every line logged inside carries the job's id."""
    with structlog.contextvars.bound_contextvars(job_id=job_id, **fields):
        yield


def current_traceparent() -> str | None:
    """W3C trace context of the work in hand, None when there is none."""
    return _traceparent.get() or None


def enter_trace(traceparent: str | None) -> str:
    """Takes over a caller's trace, or begins one when there is none that W3C Trace Context knows; returns it."""
    is_known = traceparent is not None and _TRACEPARENT.fullmatch(traceparent) is not None
    value = (
        traceparent if traceparent is not None and is_known else f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
    )
    _traceparent.set(value)
    return value


@contextlib.contextmanager
def within_trace(traceparent: str | None) -> Iterator[None]:
    """What is sent inside carries this trace, or none."""
    token = _traceparent.set(traceparent or "")
    try:
        yield
    finally:
        _traceparent.reset(token)


def _shared_processors() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]


def _hidden(event: MutableMapping[str, Any]) -> dict[str, Any]:
    return {name: without_secrets(name, value) for name, value in event.items()}


def configure(service: str, *, log_format: str = "console", level: str = "INFO", folder: Path | None = None) -> None:
    """Sends all logs, the libraries' as well, to stderr, and to rotated JSON files in `folder` when given."""
    shared = _shared_processors()
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )

    def formatter(renderer: Any) -> structlog.stdlib.ProcessorFormatter:
        return structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                lambda _logger, _name, event: {"service": service, **_hidden(event)},
                renderer,
            ],
        )

    to_json = structlog.processors.JSONRenderer(default=str)
    to_columns = structlog.dev.ConsoleRenderer(
        colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
    )
    stream = logging.StreamHandler(sys.stderr)
    stream.setFormatter(formatter(to_json if log_format == "json" else to_columns))
    handlers: list[logging.Handler] = [stream]
    if folder is not None:
        try:
            file = LogFile(folder, service)
        except OSError as error:
            print(f"{service}: no log file under {folder}: {error}", file=sys.stderr)
        else:
            file.setFormatter(formatter(to_json))
            handlers.append(file)
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "nats", "uvicorn.access", "asyncio", "aiosqlite", "python_multipart"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
