"""How does an inner service answer the customer's old addresses? It passes the request on to the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import quote

import httpx
from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from libs.common.errors import InvalidInput, TooLarge, Unavailable
from libs.common.logs import current_traceparent, get_logger, request_id
from libs.common.settings import CommonSettings

log = get_logger("forward")

PREFIX = "/api/v1"
JSON_LIMIT = 1_048_576
ANSWER_SECONDS = 30.0
UPLOAD_SECONDS = 1800.0
_PASSED_ON = ("authorization", "idempotency-key", "if-none-match", "last-event-id", "accept")
_PASSED_BACK = ("content-type", "location", "etag", "retry-after", "www-authenticate", "idempotent-replayed")
_CLIENT_GONE = 499


def segment(value: str) -> str:
    """A value from an address as one segment of another: nothing in it can change the path."""
    return quote(value, safe="") if value.strip(".") else value.replace(".", "%2E")


async def json_body(request: Request) -> dict[str, Any]:
    """The request's JSON object, `{}` for an empty body; raises InvalidInput, or TooLarge above 1 MiB."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > JSON_LIMIT:
            raise TooLarge(f"the request body is larger than {JSON_LIMIT} bytes", limit_bytes=JSON_LIMIT)
    try:
        content = json.loads(body) if body.strip() else {}
        json.dumps(content, ensure_ascii=False, allow_nan=False).encode()  # what is passed on must be JSON again
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"the body is not JSON: {error}", actions=("Send a JSON object.",)) from error
    if not isinstance(content, dict):
        raise InvalidInput("the body must be a JSON object", actions=("Send a JSON object.",))
    return content


async def forward(
    request: Request, method: str, path: str, *, body: Any = None, extra: Mapping[str, str] | None = None
) -> Response:
    """The gateway's answer to `method` on `/api/v1` + `path`, problems included, asked with the caller's own token.

    `extra` copies fields of a JSON object under another name, `{"job_id": "id"}`, or from inside another object,
    `{"exp_name": "dataset.slug"}`. Raises Unavailable when the gateway does not answer.
    """
    return await _send(request, method, path, None, body, ANSWER_SECONDS, extra or {})


async def forward_stream(request: Request, path: str, *, extra: Mapping[str, str] | None = None) -> Response:
    """The same for a POST whose body passes through piece by piece and is never held."""
    return await _send(request, "POST", path, request.stream(), None, UPLOAD_SECONDS, extra or {})


def _headers(request: Request, *, is_stream: bool) -> dict[str, str]:
    names = (*_PASSED_ON, "content-type", "content-length") if is_stream else _PASSED_ON
    headers = {name: value for name in names if (value := request.headers.get(name)) is not None and value.isascii()}
    if request_id.get():
        headers["x-request-id"] = request_id.get()
    if trace := current_traceparent():
        headers["traceparent"] = trace
    return headers


async def _send(
    request: Request,
    method: str,
    path: str,
    stream: AsyncIterator[bytes] | None,
    body: Any,
    seconds: float,
    extra: Mapping[str, str],
) -> Response:
    settings: CommonSettings = request.app.state.settings
    url = f"{settings.gateway_url.rstrip('/')}{PREFIX}{path}"
    headers = _headers(request, is_stream=stream is not None)
    try:
        async with httpx.AsyncClient(timeout=httpx.Timeout(seconds, connect=5.0), trust_env=False) as client:
            answer = await client.request(method, url, content=stream, json=body, headers=headers)
    except httpx.TimeoutException as error:
        raise Unavailable("the gateway did not answer in time", service="gateway") from error
    except httpx.TransportError as error:
        log.warning("forward.unreachable", url=url, error=f"{type(error).__name__}: {error}")
        raise Unavailable(
            "the gateway is not reachable", service="gateway", actions=("Try again in a moment.", "See GATEWAY_URL.")
        ) from error
    except ClientDisconnect:
        return Response(status_code=_CLIENT_GONE)
    back = {name: answer.headers[name] for name in _PASSED_BACK if name in answer.headers}
    return Response(_renamed(answer, extra), answer.status_code, headers=back)


def _renamed(answer: httpx.Response, extra: Mapping[str, str]) -> bytes:
    """The answer's content, its successful JSON object with the fields that old clients look for."""
    if not extra or not answer.is_success or not answer.content:
        return answer.content
    try:
        content = answer.json()
    except ValueError:
        return answer.content
    if not isinstance(content, dict):
        return answer.content
    for name, source in extra.items():
        value: Any = content
        for part in source.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            content.setdefault(name, value)
    return json.dumps(content).encode()
