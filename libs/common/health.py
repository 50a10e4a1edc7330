"""Is the service alive, and can it work? `/livez` says the process turns; `/readyz` really tries its parts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from libs.common.bus import Bus
from libs.common.errors import PlatformError, StorageFull, Unavailable
from libs.common.logs import get_logger
from libs.common.places import Places
from libs.common.storage import Storage

log = get_logger("health")

CHECK_SECONDS = 5.0


class Check(Protocol):
    """One part that the service needs. Returns a few words; raises PlatformError when the part is not there."""

    name: str

    async def __call__(self) -> str: ...


class BrokerCheck:
    """JetStream answers and has its streams."""

    name = "broker"

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def __call__(self) -> str:
        if not self._bus.is_connected:
            raise Unavailable("the message broker is not connected")
        await self._bus.ping()
        return "connected"


class WritableFolderCheck:
    """A file can be made and removed in a folder where the service must write."""

    def __init__(self, folder: Path, name: str = "") -> None:
        self._folder = folder
        self.name = name or f"folder:{folder.name}"

    def _try(self) -> str:
        probe = self._folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"voicewright")
            probe.unlink()
        except OSError as error:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
            kind = StorageFull if error.errno == 28 else Unavailable
            raise kind(f"cannot write in {self._folder}: {error.strerror}") from error
        return "writable"

    async def __call__(self) -> str:
        return await asyncio.to_thread(self._try)


class ReadableCheck:
    """A file or folder that the service reads is there."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = name

    async def __call__(self) -> str:
        if not os.access(self._path, os.R_OK):
            raise Unavailable(f"cannot read {self._path}")
        return "readable"


class StorageCheck:
    """The object store answers."""

    name = "storage"

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def __call__(self) -> str:
        return await asyncio.to_thread(self._storage.check)


async def _run(check: Check) -> dict[str, Any]:
    try:
        detail = await asyncio.wait_for(check(), CHECK_SECONDS)
    except PlatformError as error:
        return {"name": check.name, "ok": False, "detail": error.detail}
    except TimeoutError:
        return {"name": check.name, "ok": False, "detail": f"no answer within {CHECK_SECONDS:.0f} s"}
    return {"name": check.name, "ok": True, "detail": detail}


async def say_what_is_missing(checks: Sequence[Check]) -> None:
    """Logs each part that is not there when the service starts, so that its log says why it is not ready."""
    for result in await asyncio.gather(*(_run(check) for check in checks)):
        if not result["ok"]:
            log.error("service.not_ready", check=result["name"], detail=result["detail"])


def health_router(service: str, checks: Sequence[Check], places: Places) -> APIRouter:
    """`/livez`, `/readyz`, and `/health`, the customer's name for readiness. All without a token."""
    router = APIRouter(tags=["system"])

    @router.get("/livez", operation_id="livez", summary="The process turns")
    async def livez() -> dict[str, str]:
        return {"status": "alive", "service": service}

    async def readiness() -> Response:
        results = places.hidden(await asyncio.gather(*(_run(check) for check in checks)))
        is_ready = all(result["ok"] for result in results)
        body = {"status": "ready" if is_ready else "not ready", "service": service, "checks": results}
        return JSONResponse(body, status_code=200 if is_ready else 503)

    refusal: dict[int | str, dict[str, Any]] = {503: {"description": "A part is missing; `checks` names it"}}
    for path, summary in (("/readyz", "All parts that it needs are there"), ("/health", "The same by its other name")):
        router.add_api_route(path, readiness, operation_id=path[1:], summary=summary, responses=refusal)
    return router
