"""What did the trainer's port answer before there was a gateway? The same addresses, passed on (F-027, F-028)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from libs.common.errors import InvalidInput
from libs.common.forward import Forwarder, json_body, segment
from libs.common.settings import CommonSettings

PREFIX = "/api/v1/trainer"
OF_THE_JOB = frozenset({"dataset_id", "exp_name", "dataset_name", "name", "preset", "priority"})


def as_job(body: dict[str, Any]) -> dict[str, Any]:
    """The old flat body, `{"exp_name": …, "epochs": 10}`, as the gateway's: run options have their own place."""
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise InvalidInput("options must be a JSON object", field="options")
    flat = {name: value for name, value in body.items() if name not in OF_THE_JOB and name != "options"}
    return {name: body[name] for name in OF_THE_JOB if name in body} | {"options": options | flat}


def direct_router(settings: CommonSettings) -> APIRouter:
    """`/api/v1/trainer/{start,status,stop,validate}`; the caller's own token goes along, the gateway decides."""
    router = APIRouter(prefix=PREFIX, tags=["direct"])
    gateway = Forwarder(settings.gateway_url)

    @router.post("/start", status_code=202, operation_id="direct_train", summary="Start training")
    async def start(request: Request) -> Response:
        """JSON `exp_name` and options such as `epochs`; answers with `job_id` and the preset that was chosen."""
        body = as_job(await json_body(request))
        return await gateway.send(request, "POST", "/training/jobs", body=body, extra={"job_id": "id"})

    @router.get("/status/{job_id}", operation_id="direct_training_status", summary="A training job")
    async def status(job_id: str, request: Request) -> Response:
        return await gateway.send(request, "GET", f"/training/jobs/{segment(job_id)}", extra={"job_id": "id"})

    @router.post("/stop/{job_id}", operation_id="direct_stop", summary="Stop a training job")
    async def stop(job_id: str, request: Request) -> Response:
        return await gateway.send(request, "POST", f"/training/jobs/{segment(job_id)}/cancel", extra={"job_id": "id"})

    @router.get("/validate/{exp_name}", operation_id="direct_validate_training", summary="Can it be trained on?")
    async def validate(exp_name: str, request: Request) -> Response:
        return await gateway.send(request, "POST", f"/datasets/{segment(exp_name)}/validate")

    return router
