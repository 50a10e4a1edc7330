"""Which parts of the installation are there, and how are they?"""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.errors import PlatformError
from services.gateway.inner import InnerService
from services.gateway.parts import Parts
from services.gateway.workers import announced


async def of_http_service(service: InnerService) -> dict[str, Any]:
    """What `/readyz` of an inner service says."""
    try:
        ready, body = await service.readiness()
    except PlatformError as error:
        return {"name": service.name, "ok": False, "detail": error.detail, "checks": []}
    return {"name": service.name, "ok": ready, "detail": "", "checks": list(body.get("checks", []))}


async def queues(parts: Parts) -> dict[str, dict[str, int]]:
    """Commands that wait and that are in hand; nothing while the broker is away."""
    try:
        return await parts.bus.queue_depths()
    except PlatformError:
        return {}


async def overview(parts: Parts, *, names_jobs: bool) -> dict[str, Any]:
    """Everything at once, each part asked at the same time. Without `names_jobs` the ids of jobs are only counted."""
    ingest, inference, alive, depths = await asyncio.gather(
        of_http_service(parts.ingest), of_http_service(parts.inference), announced(parts.connected), queues(parts)
    )
    broker = parts.connected is not None and parts.connected.is_connected
    services = [
        {"name": "gateway", "ok": True, "detail": "", "checks": []},
        {"name": "broker", "ok": broker, "detail": "" if broker else "not connected", "checks": []},
        ingest,
        inference,
    ]
    for name in ("preprocessor", "trainer"):
        count = sum(1 for worker in alive if worker.get("service") == name)
        services.append({"name": name, "ok": count > 0, "detail": f"{count} alive", "checks": []})
    shown = [{**worker, "jobs_in_hand": len(worker.get("jobs", []))} for worker in alive]
    if not names_jobs:
        shown = [{name: value for name, value in worker.items() if name != "jobs"} for worker in shown]
    return {"services": services, "workers": shown, "queues": depths}
