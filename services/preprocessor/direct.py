"""What did the preprocessor's port answer before there was a gateway? The same addresses, passed on (F-023…F-026).

The caller's own token goes along, and the gateway decides.
"""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from libs.common.forward import forward, forward_stream, json_body, segment

PREFIX = "/api/v1/preprocess"

router = APIRouter(prefix=PREFIX, tags=["direct"])


@router.post("/upload", status_code=201, operation_id="direct_upload", summary="Upload recordings")
async def upload(request: Request) -> Response:
    """Multipart `exp_name` and `files`; streams through to ingest."""
    return await forward_stream(request, "/samples", extra={"exp_name": "dataset.slug"})


@router.post("/start", status_code=202, operation_id="direct_preprocess", summary="Start preprocessing")
async def start(request: Request) -> Response:
    """JSON `exp_name`; answers with `job_id`."""
    body = await json_body(request)
    return await forward(request, "POST", "/preprocess/jobs", body=body, extra={"job_id": "id"})


@router.get("/status/{job_id}", operation_id="direct_preprocess_status", summary="A preprocessing job")
async def status(job_id: str, request: Request) -> Response:
    """The job, with its id as `job_id` too."""
    return await forward(request, "GET", f"/preprocess/jobs/{segment(job_id)}", extra={"job_id": "id"})


@router.get("/validate/{exp_name}", operation_id="direct_validate_prepared", summary="Is it prepared?")
async def validate(exp_name: str, request: Request) -> Response:
    """Which of the five folders are there, and what is missing."""
    return await forward(request, "POST", f"/datasets/{segment(exp_name)}/validate")
