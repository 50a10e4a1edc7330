"""What did the preprocessor's port answer before there was a gateway? The same addresses, passed on (F-023…F-026)."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from libs.common.forward import Forwarder, json_body, segment
from libs.common.settings import CommonSettings

PREFIX = "/api/v1/preprocess"


def direct_router(settings: CommonSettings) -> APIRouter:
    """`/api/v1/preprocess/{upload,start,status,validate}`; the caller's own token goes along, the gateway decides."""
    router = APIRouter(prefix=PREFIX, tags=["direct"])
    gateway = Forwarder(settings.gateway_url)

    @router.post("/upload", status_code=201, operation_id="direct_upload", summary="Upload recordings")
    async def upload(request: Request) -> Response:
        """Multipart `exp_name` and `files`; streams through to ingest."""
        return await gateway.stream(request, "/samples", extra={"exp_name": "dataset.slug"})

    @router.post("/start", status_code=202, operation_id="direct_preprocess", summary="Start preprocessing")
    async def start(request: Request) -> Response:
        """JSON `exp_name`; answers with `job_id`."""
        return await gateway.send(
            request, "POST", "/preprocess/jobs", body=await json_body(request), extra={"job_id": "id"}
        )

    @router.get("/status/{job_id}", operation_id="direct_preprocess_status", summary="A preprocessing job")
    async def status(job_id: str, request: Request) -> Response:
        return await gateway.send(request, "GET", f"/preprocess/jobs/{segment(job_id)}", extra={"job_id": "id"})

    @router.get("/validate/{exp_name}", operation_id="direct_validate_prepared", summary="Is it prepared?")
    async def validate(exp_name: str, request: Request) -> Response:
        return await gateway.send(request, "POST", f"/datasets/{segment(exp_name)}/validate")

    return router
