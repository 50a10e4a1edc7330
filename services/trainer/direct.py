"""What did the trainer's port answer before there was a gateway? The same addresses, passed on (F-005, 6, 27, 28).

The caller's own token goes along, and the gateway decides.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from libs.common.errors import InvalidInput
from libs.common.forward import forward, json_body, segment

PREFIX = "/api/v1/trainer"
OF_THE_JOB = frozenset({"dataset_id", "exp_name", "dataset_name", "name", "preset", "priority"})

OPEN_PREFIXES = (f"{PREFIX}/", "/train")
"""Where the caller's own token counts: `/train` is that of `/training-jobs` too."""

router = APIRouter(tags=["direct"])


def as_job(body: dict[str, Any]) -> dict[str, Any]:
    """The old flat body, `{"exp_name": …, "epochs": 10}`, as the gateway's: run options have their own place."""
    options = body.get("options", {})
    if not isinstance(options, dict):
        raise InvalidInput("options must be a JSON object", field="options")
    flat = {name: value for name, value in body.items() if name not in OF_THE_JOB and name != "options"}
    return {name: body[name] for name in OF_THE_JOB if name in body} | {"options": options | flat}


@router.post(f"{PREFIX}/start", status_code=202, operation_id="direct_train", summary="Start training")
async def start(request: Request) -> Response:
    """JSON `exp_name` and options such as `epochs`; answers with `job_id` and the preset that was chosen."""
    body = as_job(await json_body(request))
    return await forward(request, "POST", "/training/jobs", body=body, extra={"job_id": "id"})


@router.get(PREFIX + "/status/{job_id}", operation_id="direct_training_status", summary="A training job")
async def status(job_id: str, request: Request) -> Response:
    """The job, with its id as `job_id` too."""
    return await forward(request, "GET", f"/training/jobs/{segment(job_id)}", extra={"job_id": "id"})


@router.post(PREFIX + "/stop/{job_id}", operation_id="direct_stop", summary="Stop a training job")
async def stop(job_id: str, request: Request) -> Response:
    """Ends a waiting job at once, and asks the worker of a running one."""
    return await forward(request, "POST", f"/training/jobs/{segment(job_id)}/cancel", extra={"job_id": "id"})


@router.get(PREFIX + "/validate/{exp_name}", operation_id="direct_validate_training", summary="Can it be trained on?")
async def validate(exp_name: str, request: Request) -> Response:
    """Which of the five folders are there, and what is missing."""
    return await forward(request, "POST", f"/datasets/{segment(exp_name)}/validate")


@router.post("/train", status_code=202, operation_id="direct_fine_tune", summary="Fine-tune a voice that speaks")
async def fine_tune(request: Request) -> Response:
    """JSON `dataset_name`, `epochs`, `batch_size`, for an administrator; answers with `job_id`."""
    return await forward(request, "POST", "/admin/training/start", body=await json_body(request))


@router.get("/training-jobs", operation_id="direct_training_jobs", summary="All trainings")
async def training_jobs(request: Request) -> Response:
    """For an administrator: `jobs`, each with its status, whether it made a voice, and its log's address."""
    return await forward(request, "GET", "/admin/training/jobs")
