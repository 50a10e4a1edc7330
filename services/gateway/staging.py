"""How does a request's body get into ingest's staging area? As it comes, counted, and never held."""

from __future__ import annotations

import difflib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from starlette.requests import ClientDisconnect

from libs.common.errors import InvalidInput, PlatformError, TooLarge, Unavailable
from libs.common.logs import get_logger
from services.gateway.parts import Parts

log = get_logger("gateway.staging")


class ClientGone(PlatformError):
    """The client went away"""

    status = 499
    code = "client_gone"


@dataclass(frozen=True)
class Staged:
    """One file that waits in ingest's staging area, as ingest describes it."""

    upload_id: str
    field: str
    name: str
    sha256: str
    extension: str
    mime_type: str
    size_bytes: int
    duration_seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class Form:
    """What a multipart request held: plain fields, accepted files, and refused ones with their problems."""

    fields: dict[str, str]
    files: list[Staged] = field(default_factory=list)
    rejected: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def expect_only(self, *names: str) -> None:
        """Raises InvalidInput for a field of another name that asks for something, so that no slip goes unnoticed."""
        for name, value in self.fields.items():
            if value and name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                raise InvalidInput(
                    f"there is no field {name[:40]!r} in this form",
                    field=name[:40],
                    actions=(f"Did you mean `{near[0]}`?" if near else f"Known are: {', '.join(names)}.",),
                )


async def receive(parts: Parts, request: Request, limit: int, *, to: str = "/uploads") -> Form:
    """Pipes the body into ingest and returns what it found in it; `to` is `/model-files` for files of voices.

    Raises TooLarge once more than `limit` bytes came or were announced, InvalidInput when the body is no multipart
    form, and whatever ingest says. When the client goes away, or this raises, ingest keeps nothing.
    """
    content_type = request.headers.get("content-type", "")
    if not content_type.lower().startswith("multipart/form-data") or "boundary=" not in content_type.lower():
        raise InvalidInput(
            "the body must be multipart/form-data",
            actions=("Send the files as a form, as `curl -F files=@a.wav` does.",),
        )
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    try:
        answer = await parts.ingest.upload(
            to,
            _counted(request, limit),
            content_type=content_type,
            timeout=parts.settings.upload_timeout.total_seconds(),
            idle=parts.settings.upload_idle.total_seconds(),
        )
    except ClientDisconnect:
        raise ClientGone("the client closed the connection while it was sending") from None
    try:
        return _form(answer)
    except (KeyError, TypeError, ValueError) as error:
        log.error("ingest.answer_not_understood", error=f"{type(error).__name__}: {error}")
        raise Unavailable("ingest gave an answer that is not understood", service="ingest") from error


async def release(parts: Parts, upload_ids: list[str]) -> None:
    """Drops staged files. What cannot be dropped now, ingest sweeps away later."""
    for upload_id in upload_ids:
        try:
            await parts.ingest.call("DELETE", f"/uploads/{upload_id}")
        except PlatformError as error:
            log.warning("staging.not_released", upload_id=upload_id, detail=error.detail)


async def _counted(request: Request, limit: int) -> AsyncIterator[bytes]:
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > limit:
            raise _too_large(limit)
        if chunk:
            yield chunk


def _form(answer: dict[str, Any]) -> Form:
    form = Form(fields={str(name): str(value) for name, value in dict(answer.get("fields") or {}).items()})
    for item in answer["files"]:
        name = str(item.get("name") or "")
        if "problem" in item:
            form.rejected.append((name, dict(item["problem"])))
            continue
        form.files.append(
            Staged(
                upload_id=str(item["upload_id"]),
                field=str(item.get("field") or ""),
                name=name,
                sha256=str(item["sha256"]),
                extension=str(item["extension"]),
                mime_type=str(item["mime_type"]),
                size_bytes=int(item["size_bytes"]),
                duration_seconds=float(item["duration_seconds"]),
                report=dict(item.get("report") or {}),
            )
        )
    return form


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"the request is larger than {limit / 1e6:g} MB",
        limit_bytes=limit,
        actions=("Send several files in several requests, and a long recording as FLAC, MP3 or OGG.",),
    )
