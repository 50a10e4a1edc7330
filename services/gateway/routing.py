"""What holds for every route? A caller, a bounded body, and creating requests that may be repeated.

`router(...)` makes a domain's router. A route is public only in a router with `public=True`. Add
`dependencies=[creates]` to a POST that makes something, `[creates, streams]` when its body is a stream that the route
itself bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.requests import ClientDisconnect

from libs.common.errors import TooLarge
from services.gateway import idempotency
from services.gateway.accounts import scopes
from services.gateway.accounts.current import authenticate
from services.gateway.body_print import BodyPrint
from services.gateway.parts import parts_of

PREFIX = "/api/v1"


class Problem(BaseModel):
    """RFC 9457 problem details; `code` is for programs, `detail` and `suggested_actions` are for people."""

    type: str = Field(examples=["urn:voicewright:problem:not_found"])
    title: str = Field(examples=["There is no such thing"])
    status: int = Field(examples=[404])
    detail: str = Field(examples=["there is no dataset 'test'"])
    code: str = Field(examples=["not_found"])
    retryable: bool = False
    suggested_actions: list[str] = Field(default=[], examples=[["Check the name or id; list what you have."]])
    field: str | None = Field(default=None, description="The input at fault")
    retry_after: float | None = Field(default=None, description="Seconds after which to try again")
    request_id: str | None = None


_MEANINGS = {
    401: "No token, or one that is expired, foreign or garbled",
    403: "Your role does not allow this",
    404: "There is no such thing, or it belongs to somebody else",
    409: "It conflicts with the present state",
    410: "It is not kept any more",
    412: "It has changed since you read it",
    413: "The body is larger than the limit",
    415: "Not an accepted sound format",
    416: "The file has no such range",
    422: "The request is understood and cannot be accepted; `detail` names field and limit",
    429: "Too many at once; see Retry-After",
    500: "The voice did not say the text in several attempts; `detail` names the words",
    503: "A part of the platform is not reachable; `service` names it",
    507: "The disk is full, and nothing was kept",
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route: which problems it may answer with."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {
        status: {"description": _MEANINGS[status], "content": {"application/problem+json": schema}}
        for status in sorted(statuses)
    }


async def _creates(
    idempotency_key: Annotated[
        str | None,
        Header(
            description="Chosen by the client, at most 200 characters: a repeated request with the same key is "
            "answered as the first was, with `Idempotent-Replayed: true`; another request with it is refused",
            examples=["8e03978e-40d5-43dd-bc93-6894a57f9324"],
        ),
    ] = None,
) -> None:
    """Marks a route whose answer is kept under the caller's key; `GatewayRoute` does it."""


async def _streams() -> None:
    """Marks a route that reads its body itself, chunk by chunk, and stops at a limit of its own."""


creates = Depends(_creates)
streams = Depends(_streams)


async def bounded_body(request: Request, limit: int) -> bytes:
    """The whole body of a small request, kept for whoever reads it next; raises TooLarge at `limit` bytes."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > limit:
                raise _too_large(limit)
    except ClientDisconnect:
        body.clear()
    request._body = bytes(body)
    return request._body


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the request body is larger than {limit} bytes", limit_bytes=limit, actions=("Send less.",))


class PublicRoute(APIRoute):
    """A route for anybody, with a bounded body."""

    is_public = True

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        inner = super().get_route_handler()
        marks = {mark.dependency for mark in self.dependencies}
        path = self.path
        is_public, is_streamed, is_creating = self.is_public, _streams in marks, _creates in marks

        async def handle(request: Request) -> Response:
            parts = parts_of(request)
            caller = None if is_public else await authenticate(request)
            if caller is not None:
                scopes.check(caller, request.method, path)
            body = None if is_streamed else await bounded_body(request, parts.settings.json_limit)
            key = request.headers.get("idempotency-key")
            if not is_creating or caller is None or key is None:
                return await inner(request)
            same = idempotency.fingerprint(request.method, request.url.path, request.url.query, body)
            lock = parts.settings.upload_timeout if is_streamed else parts.settings.idempotency_lock
            sent = BodyPrint(request.headers.get("content-type", "")) if is_streamed else None
            return await idempotency.once(request, caller, key, same, inner, parts.database, parts.settings, lock, sent)

        return handle


class GatewayRoute(PublicRoute):
    """A route that needs a caller; they are known before a byte of the body is read."""

    is_public = False


def router(prefix: str, tag: str, *, public: bool = False) -> APIRouter:
    """A domain's router below `/api/v1`."""
    common = problems(413, 422, 503) if public else problems(401, 413, 422, 503)
    route_class = PublicRoute if public else GatewayRoute
    return APIRouter(prefix=f"{PREFIX}{prefix}", tags=[tag], route_class=route_class, responses=common)
