"""How are errors told over HTTP? RFC 9457 problem details, made here alone."""

from __future__ import annotations

import math
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from libs.common.errors import PlatformError
from libs.common.invalid import field_of, message_of
from libs.common.logs import get_logger, request_id
from libs.common.places import Places

log = get_logger("problems")

MEDIA_TYPE = "application/problem+json"
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_SEE = ["/docs lists every address and what it takes."]


def answer(problem: dict[str, Any], *, headers: dict[str, str] | None = None) -> JSONResponse:
    """A problem as an HTTP answer; 401 names the scheme, 429 and 503 carry Retry-After when the problem knows it."""
    status = int(problem["status"])
    extra = dict(headers or {})
    if status == 401:
        extra.setdefault("WWW-Authenticate", "Bearer")
    if problem.get("retry_after") is not None:
        extra.setdefault("Retry-After", str(max(1, math.ceil(float(problem["retry_after"])))))
    body = dict(problem)
    if request_id.get():
        body.setdefault("request_id", request_id.get())
    return JSONResponse(body, status_code=status, media_type=MEDIA_TYPE, headers=extra)


def plain(status: int, title: str, detail: str, code: str, **extra: Any) -> dict[str, Any]:
    """A problem that no class of the tree stands for."""
    return {
        "type": f"urn:voicewright:problem:{code}",
        "title": title,
        "status": status,
        "detail": detail,
        "code": code,
        "retryable": False,
        "suggested_actions": [],
        **extra,
    }


def as_told(app: FastAPI, error: PlatformError) -> dict[str, Any]:
    """The problem details of `error` without the places of the installation that `app` serves."""
    places: Places | None = getattr(app.state, "places", None)
    problem = error.problem()
    return problem if places is None else cast("dict[str, Any]", places.hidden(problem))


async def _platform_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PlatformError)
    if error.status >= 500:
        log.warning("problem", code=error.code, detail=error.detail)
    return answer(as_told(request.app, error))


async def _invalid_request(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    fields = [
        {
            "field": field_of(item) or "body",
            "message": message_of(item),
            "limits": {k: v for k, v in (item.get("ctx") or {}).items() if isinstance(v, int | float | str)},
        }
        for item in error.errors()
    ]
    said = "; ".join(f"{item['field']}: {item['message']}" for item in fields)
    return answer(
        plain(
            422,
            "The request cannot be accepted",
            said,
            "invalid_input",
            field=fields[0]["field"] if fields else None,
            errors=fields,
            suggested_actions=["Correct the fields that are named; /docs shows what is expected."],
        )
    )


def _methods(request: Request) -> list[str]:
    """All methods of the address that was asked for: the framework names those of the first route that has it."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    return [method for method in _METHODS if takes(method)]


async def _http_exception(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = error.status_code
    asked = f"{request.method} {request.url.path[:200]}"
    if status == 404:
        said = plain(404, "There is no such address", f"{asked} is not there", "not_found", suggested_actions=_SEE)
    elif status == 405:
        title, detail = "This method is not allowed here", f"{asked} is not there, but the address is"
        allowed = ", ".join(_methods(request))
        said = plain(405, title, f"{detail}; it takes {allowed}", "method_not_allowed", suggested_actions=_SEE)
        return answer(said, headers={"Allow": allowed})
    elif status == 400:
        title, act = "The request cannot be read", ["Send JSON in UTF-8."]
        said = plain(400, title, str(error.detail), "bad_request", suggested_actions=act)
    else:
        said = plain(status, str(error.detail), str(error.detail), "http_error")
    return answer(said, headers=dict(error.headers or {}))


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    log.error("problem.unexpected", error=f"{type(error).__name__}: {error}", exc_info=error)
    return answer(
        plain(
            500,
            "Something went wrong in the platform",
            "An unexpected error was logged under the request id.",
            "internal_error",
            suggested_actions=["Try again; if it stays, give the request id to the administrator."],
        )
    )


def install(app: FastAPI, places: Places | None = None) -> None:
    """Makes every error of `app` a problem document, which says nothing of `places`."""
    app.state.places = places
    app.add_exception_handler(PlatformError, _platform_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_exception)
    app.add_exception_handler(Exception, _unexpected)
