"""What can be asked about the installation?"""

from __future__ import annotations

from importlib import metadata
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from services.gateway.accounts.current import CurrentUser
from services.gateway.parts import SharedParts
from services.gateway.routing import router
from services.gateway.system import status

system_router = router("/system", "system")
version_router = router("", "system", public=True)
root_router = APIRouter(tags=["system"])


class Version(BaseModel):
    name: str = Field(examples=["voicewright"])
    version: str = Field(examples=["0.1.0"])
    api: str = Field(examples=["v1"])


class ServiceState(BaseModel):
    name: str = Field(examples=["ingest"])
    ok: bool = Field(description="It answers, and all parts that it needs are there")
    detail: str = Field(default="", description="Why it is not, or how many are alive")
    checks: list[dict[str, Any]] = Field(default=[], description="Those parts, as its /readyz lists them")


class Services(BaseModel):
    services: list[ServiceState]
    workers: list[dict[str, Any]] = Field(
        description="Workers that are alive: service, device, how many jobs, for administrators which"
    )
    queues: dict[str, dict[str, int]] = Field(
        description="Commands per queue", examples=[{"trainer-normal": {"pending": 0, "unacknowledged": 1}}]
    )


def _version() -> Version:
    try:
        number = metadata.version("voicewright")
    except metadata.PackageNotFoundError:
        number = "0"
    return Version(name="voicewright", version=number, api="v1")


@version_router.get("/version", operation_id="get_version", summary="What runs here")
async def get_version() -> Version:
    """Name and version of the platform, and of its API."""
    return _version()


@root_router.get("/version", include_in_schema=False)
async def get_version_at_the_root() -> Version:
    """The same, beside /livez."""
    return _version()


@system_router.get("/services", operation_id="list_services", summary="Services, workers and queues")
async def list_services(caller: CurrentUser, parts: SharedParts) -> Services:
    """Which are there, and what waits in the queues; whose jobs they do, administrators see."""
    return Services.model_validate(await status.overview(parts, names_jobs=caller.is_admin))
