"""What can ingest be asked? Only by the gateway: to receive files, to move them into datasets, to give them back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.requests import ClientDisconnect

from libs.common.errors import TooLarge
from libs.common.logs import get_logger
from libs.common.paths import Paths
from libs.common.ranges import RangedFile
from services.ingest import datasets, removing, staging
from services.ingest.copies import Copies
from services.ingest.schemas import ClaimAnswer, ClaimedFile, ClaimRequest, SweepAnswer, SweepRequest, UploadAnswer
from services.ingest.settings import IngestSettings
from services.ingest.uploads import Uploads

log = get_logger("ingest.api")
router = APIRouter()

CLIENT_GONE = 499


@dataclass
class Parts:
    """What the calls work with."""

    settings: IngestSettings
    paths: Paths
    uploads: Uploads
    copies: Copies


def _parts(request: Request) -> Parts:
    parts: Parts = request.app.state.parts
    return parts


Shared = Annotated[Parts, Depends(_parts)]
Sha256 = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="Checksum of the original")]
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            }
        },
    }
}


async def _receive(request: Request, parts: Parts, *, are_models: bool) -> Response | UploadAnswer:
    kind, declared = request.headers.get("content-type", ""), request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else None
    try:
        received = await parts.uploads.receive(kind, size, request.stream(), are_models=are_models)
    except ClientDisconnect:
        log.info("upload.client_gone")
        return Response(status_code=CLIENT_GONE)
    return UploadAnswer.model_validate(received)


@router.post(
    "/uploads", operation_id="receive_uploads", summary="Stage the files of a form", response_model=UploadAnswer,
    openapi_extra=_FORM,
)  # fmt: skip
async def receive_uploads(request: Request, parts: Shared) -> Response | UploadAnswer:
    """The body is consumed as it comes. Files that are refused carry a problem in the answer; the others are staged."""
    return await _receive(request, parts, are_models=False)


@router.post(
    "/model-files", operation_id="receive_models", summary="Stage model files in quarantine",
    response_model=UploadAnswer, openapi_extra=_FORM,
)  # fmt: skip
async def receive_models(request: Request, parts: Shared) -> Response | UploadAnswer:
    """As `/uploads`, for voices, indices and archives: nothing in them is opened here."""
    return await _receive(request, parts, are_models=True)


@router.delete("/uploads/{upload_id}", operation_id="drop_upload", summary="Drop a staged upload", status_code=204)
async def drop_upload(upload_id: str, parts: Shared) -> None:
    await asyncio.to_thread(staging.remove, parts.paths, upload_id)


@router.post("/datasets/{dataset}/files", operation_id="claim_uploads", summary="Move staged uploads into a dataset")
async def claim_uploads(dataset: str, request: ClaimRequest, parts: Shared) -> ClaimAnswer:
    """May be repeated: the same content is the same file."""
    claimed = await asyncio.to_thread(datasets.claim, parts.paths, dataset, request.upload_ids)
    for file in claimed:
        parts.copies.add(dataset, file.sha256, file.extension)
    return ClaimAnswer(files=[ClaimedFile.model_validate(file) for file in claimed])


@router.post("/jobs/{job_id}/files", operation_id="claim_for_job", summary="Move staged uploads to a job")
async def claim_for_job(job_id: str, request: ClaimRequest, parts: Shared) -> ClaimAnswer:
    """For recordings that belong to a job alone: they get no copy in the object store. May be repeated."""
    claimed = await asyncio.to_thread(datasets.claim_for_job, parts.paths, job_id, request.upload_ids)
    return ClaimAnswer(files=[ClaimedFile.model_validate(file) for file in claimed])


@router.delete(
    "/jobs/{job_id}/files", operation_id="remove_sent", summary="Remove what a job was sent", status_code=204
)
async def remove_sent(job_id: str, parts: Shared) -> None:
    await asyncio.to_thread(removing.remove_sent, parts.paths, job_id)


@router.delete("/jobs/{job_id}", operation_id="remove_job", summary="Remove all of a job's files", status_code=204)
async def remove_job(job_id: str, parts: Shared) -> None:
    """What was sent with it, and what its steps made; for jobs without a dataset."""
    await asyncio.to_thread(removing.remove_job, parts.paths, job_id)


@router.delete(
    "/datasets/{dataset}/files/{sha256}", operation_id="remove_file", summary="Remove a recording", status_code=204
)
async def remove_file(dataset: str, sha256: Sha256, parts: Shared) -> None:
    """Removes the original, its WAV, its report and its copy in the object store."""
    await asyncio.to_thread(datasets.remove_file, parts.paths, dataset, sha256)
    await parts.copies.remove_file(dataset, sha256)


@router.delete(
    "/datasets/{dataset}", operation_id="remove_dataset", summary="Remove a dataset's files", status_code=204
)
async def remove_dataset(dataset: str, parts: Shared) -> None:
    """Removes its uploads, their copies in the object store, and its experiment: all that was made of it."""
    await asyncio.to_thread(removing.remove_dataset, parts.paths, dataset)
    await parts.copies.remove_dataset(dataset)


@router.post(
    "/experiments/{experiment}/jobs/{job_id}/sweep",
    operation_id="sweep_attempts",
    summary="Remove what a job left and nobody needs",
)
async def sweep_attempts(experiment: str, job_id: str, request: SweepRequest, parts: Shared) -> SweepAnswer:
    """Attempts of steps whose result is not in use: of killed workers, of failed and cancelled jobs."""
    older_than = request.older_than_seconds
    removed = await asyncio.to_thread(
        removing.sweep_attempts, parts.paths, experiment, job_id, request.keep, older_than
    )
    return SweepAnswer(removed=removed)


@router.get(
    "/datasets/{dataset}/files/{sha256}/audio",
    operation_id="read_audio",
    summary="A recording's sound",
    response_class=RangedFile,
)
async def read_audio(
    dataset: str, sha256: Sha256, parts: Shared, form: Literal["original", "wav"] = "original"
) -> RangedFile:
    """As it was sent, or as 22050 Hz mono WAV. Ranges are understood."""
    path, kind = await asyncio.to_thread(datasets.audio, parts.paths, dataset, sha256, form)
    return RangedFile(path, media_type=kind)


@router.put(
    "/datasets/{dataset}/metadata", operation_id="write_metadata", summary="Write metadata.csv", status_code=204,
    openapi_extra={"requestBody": {"required": True, "content": {"text/csv": {"schema": {"type": "string"}}}}},
)  # fmt: skip
async def write_metadata(dataset: str, request: Request, parts: Shared) -> Response:
    """LJSpeech's lines of `id|text|text`; replaces what was there."""
    limit = int(parts.settings.metadata_limit)
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise TooLarge(f"metadata.csv is larger than {limit} bytes", field="body", limit_bytes=limit)
    except ClientDisconnect:
        return Response(status_code=CLIENT_GONE)
    await asyncio.to_thread(datasets.write_metadata, parts.paths, dataset, bytes(content))
    return Response(status_code=204)
