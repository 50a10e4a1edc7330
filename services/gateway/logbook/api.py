"""What can an administrator ask of the services' logs?"""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import AwareDatetime, BaseModel, Field

from libs.common.errors import Busy
from services.gateway.accounts.current import Admin
from services.gateway.logbook.search import Found, Wanted, search
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import problems, router

log_router: APIRouter = router("/admin/logs", "administration")

AT_ONCE = threading.BoundedSemaphore(2)

Service = Literal["gateway", "ingest", "preprocessor", "trainer", "inference"]
Level = Literal["debug", "info", "warning", "error", "critical"]


class LogLine(BaseModel):
    at: datetime = Field(description="When it was said")
    service: str = Field(examples=["trainer"])
    level: str = Field(examples=["info"])
    logger: str = Field(default="", examples=["worker"])
    event: str = Field(description="What happened", examples=["worker.done"])
    job_id: str | None = Field(default=None, description="The job that was in hand")
    request_id: str | None = Field(default=None, description="The request that was answered")
    fields: dict[str, Any] = Field(description="Everything else that the line says", examples=[{"token": 1}])


class LogLines(BaseModel):
    items: list[LogLine] = Field(description="Newest first")
    is_complete: bool = Field(description="Nothing else fits; otherwise ask again with `until` set to `searched_until`")
    searched_until: datetime | None = Field(description="Everything after this moment was looked at; null for all")
    searched_bytes: int = Field(description="How much was read; one search reads 64 MB at most")


@log_router.get("", operation_id="search_logs", summary="Search the logs", responses=problems(403, 429))
async def search_logs(
    _: Admin,
    parts: SharedParts,
    service: Annotated[Service | None, Query(description="Only what this service said")] = None,
    level: Annotated[Level | None, Query(description="Only lines as severe as this, or more")] = None,
    job_id: Annotated[str | None, Query(max_length=80, description="Only what was said about this job")] = None,
    request_id: Annotated[str | None, Query(max_length=80, description="Only what this request made happen")] = None,
    q: Annotated[str | None, Query(max_length=200, description="Text that stands in the line, upper or lower")] = None,
    since: Annotated[AwareDatetime | None, Query(description="Only what was said at this moment or later")] = None,
    until: Annotated[AwareDatetime | None, Query(description="Only what was said before this moment")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Lines at most")] = 100,
) -> LogLines:
    """What all replicas of all services said last, newest first, from the files that they keep in the data folder."""
    wanted = Wanted(service, level, job_id, request_id, q, since, until, limit)
    found = await asyncio.to_thread(_in_turn, parts, wanted)
    return LogLines(
        items=[_line(line) for line in found.lines],
        is_complete=found.is_complete,
        searched_until=datetime.fromisoformat(found.searched_until) if found.searched_until else None,
        searched_bytes=found.searched_bytes,
    )


def _in_turn(parts: Parts, wanted: Wanted) -> Found:
    """Raises Busy while two others search: each may read tens of megabytes."""
    if not AT_ONCE.acquire(timeout=2):
        raise Busy("two searches of the logs are running already", retry_after=2)
    try:
        return search(parts.paths.logs, wanted)
    finally:
        AT_ONCE.release()


def _line(line: dict[str, Any]) -> LogLine:
    named = {name: str(line.get(name, "")) for name in ("service", "level", "logger", "event")}
    about = {name: str(line[name]) if line.get(name) else None for name in ("job_id", "request_id")}
    rest = {name: value for name, value in line.items() if name not in {*named, *about, "timestamp"}}
    return LogLine(at=datetime.fromisoformat(str(line["timestamp"])), fields=rest, **named, **about)
