"""A small ingest on a real socket: speaks the same HTTP as the real one, and takes anything that begins like sound."""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from libs.common import problems
from libs.common.errors import PlatformError, TooLarge, Unavailable, UnsupportedAudio, VoiceSampleNotFound
from libs.common.multipart import Field, FileBegin, FileData, FileEnd, Limits, read_form

MAGIC = {b"RIFF": ("wav", "audio/wav"), b"ID3": ("mp3", "audio/mpeg"), b"fLaC": ("flac", "audio/flac")}


def sound(seed: str = "", kind: bytes = b"RIFF") -> bytes:
    """Bytes that the double takes for a recording, different for each `seed`."""
    return kind + b"\0" + seed.encode() * 3


@dataclass
class IngestDouble:
    """What it holds, and how it misbehaves on demand."""

    token: str
    file_limit: int = 50_000_000
    total_limit: int = 10_000_000_000
    seconds: float = 12.5
    staged: dict[str, tuple[str, str, bytes]] = field(default_factory=dict)
    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    sent: dict[str, list[str]] = field(default_factory=dict)
    received_bytes: int = 0
    aborted: int = 0
    is_claim_broken: bool = False
    lose_uploads: bool = False
    claim_gate: asyncio.Event | None = None
    is_claiming: asyncio.Event = field(default_factory=asyncio.Event)
    swept: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    sweep_gate: asyncio.Event | None = None
    is_sweeping: asyncio.Event = field(default_factory=asyncio.Event)
    never_removed: set[str] = field(default_factory=set)

    def app(self) -> FastAPI:
        app = FastAPI()
        problems.install(app)

        @app.middleware("http")
        async def check(request: Request, following: Any) -> Response:
            if request.url.path != "/readyz" and request.headers.get("authorization") != f"Bearer {self.token}":
                return problems.answer(problems.plain(401, "no", "the service token is missing", "unauthenticated"))
            answer: Response = await following(request)
            return answer

        @app.get("/readyz")
        async def readyz() -> dict[str, Any]:
            return {"status": "ready", "checks": []}

        @app.post("/uploads")
        async def uploads(request: Request) -> JSONResponse:
            try:
                return JSONResponse(await self._stage(request))
            except PlatformError as error:
                return problems.answer(error.problem(), headers={"Connection": "close"})

        @app.post("/model-files")
        async def models(request: Request) -> JSONResponse:
            try:
                return JSONResponse(await self._stage(request, are_models=True))
            except PlatformError as error:
                return problems.answer(error.problem(), headers={"Connection": "close"})

        @app.post("/datasets/{slug}/files")
        async def claim(slug: str, request: Request) -> dict[str, Any]:
            ids = (await request.json())["upload_ids"]
            self.is_claiming.set()
            if self.claim_gate is not None:
                await self.claim_gate.wait()
            if self.is_claim_broken:
                raise RuntimeError("out of order")
            if self.lose_uploads or any(upload_id not in self.staged for upload_id in ids):
                raise VoiceSampleNotFound("this upload is not staged")
            moved = []
            for upload_id in ids:
                sha256, extension, data = self.staged.pop(upload_id)
                self.files[slug, sha256] = data
                moved.append({"upload_id": upload_id, "sha256": sha256, "extension": extension})
            return {"files": moved}

        @app.post("/jobs/{job_id}/files")
        async def claim_for_job(job_id: str, request: Request) -> dict[str, Any]:
            ids = (await request.json())["upload_ids"]
            if any(upload_id not in self.staged for upload_id in ids):
                raise VoiceSampleNotFound("this upload is not staged")
            self.sent.setdefault(job_id, []).extend(self.staged.pop(upload_id)[0] for upload_id in ids)
            return {"files": []}

        @app.delete("/jobs/{job_id}/files", status_code=204)
        @app.delete("/jobs/{job_id}", status_code=204)
        async def remove_job(job_id: str) -> Response:
            if job_id in self.never_removed:
                raise Unavailable("cannot be removed at the moment")
            self.sent.pop(job_id, None)
            return Response(status_code=204)

        @app.delete("/uploads/{upload_id}", status_code=204)
        async def drop(upload_id: str) -> Response:
            self.staged.pop(upload_id, None)
            return Response(status_code=204)

        @app.delete("/datasets/{slug}/files/{sha256}", status_code=204)
        async def remove(slug: str, sha256: str) -> Response:
            self.files.pop((slug, sha256), None)
            return Response(status_code=204)

        @app.delete("/datasets/{slug}", status_code=204)
        async def remove_all(slug: str) -> Response:
            if slug in self.never_removed:
                raise Unavailable("cannot be removed at the moment")
            for key in [key for key in self.files if key[0] == slug]:
                del self.files[key]
            return Response(status_code=204)

        @app.post("/experiments/{slug}/jobs/{job_id}/sweep")
        async def sweep(slug: str, job_id: str, request: Request) -> dict[str, Any]:
            self.is_sweeping.set()
            if self.sweep_gate is not None:
                await self.sweep_gate.wait()
            self.swept.append((slug, job_id, await request.json()))
            return {"removed": []}

        @app.put("/datasets/{slug}/metadata", status_code=204)
        async def metadata(slug: str, request: Request) -> Response:
            self.metadata[slug] = (await request.body()).decode()
            return Response(status_code=204)

        @app.get("/datasets/{slug}/files/{sha256}/audio")
        async def audio(slug: str, sha256: str, form: str = "original") -> Response:
            if (slug, sha256) not in self.files:
                raise VoiceSampleNotFound("there is no such file")
            return Response(self.files[slug, sha256] + form.encode(), media_type="audio/wav")

        return app

    async def _stage(self, request: Request, are_models: bool = False) -> dict[str, Any]:
        answer: dict[str, Any] = {"fields": {}, "files": []}
        made: list[str] = []
        try:
            part, name, data, total, is_over = "", "", bytearray(), 0, False
            async for event in read_form(request.headers["content-type"], self._watched(request), Limits(files=1000)):
                match event:
                    case Field():
                        answer["fields"][event.name] = event.value
                    case FileBegin():
                        part, name, data, is_over = event.field, event.filename, bytearray(), False
                    case FileData():
                        total += len(event.data)
                        if total > self.total_limit:
                            raise TooLarge(f"more than {self.total_limit} bytes in one request")
                        is_over = is_over or len(data) + len(event.data) > self.file_limit
                        if not is_over:
                            data += event.data
                    case FileEnd():
                        kept = self._keep(name, bytes(data), is_over, made, are_models)
                        answer["files"].append(kept | {"field": part})
        except BaseException:
            self.aborted += 1
            for upload_id in made:
                self.staged.pop(upload_id, None)
            raise
        return answer

    def _keep(self, name: str, data: bytes, is_over: bool, made: list[str], are_models: bool) -> dict[str, Any]:
        if is_over:
            return {"field": "files", "name": name, "problem": TooLarge(f"over {self.file_limit} bytes").problem()}
        accepted = {b"": ("model", "application/octet-stream")} if are_models else MAGIC
        for magic, (extension, mime_type) in accepted.items():
            if data.startswith(magic):
                upload_id = secrets.token_hex(8)
                sha256 = hashlib.sha256(data).hexdigest()
                self.staged[upload_id] = (sha256, extension, data)
                made.append(upload_id)
                return {
                    "field": "files",
                    "name": name,
                    "upload_id": upload_id,
                    "sha256": sha256,
                    "extension": extension,
                    "mime_type": mime_type,
                    "size_bytes": len(data),
                    "duration_seconds": self.seconds,
                    "report": {"duration_seconds": self.seconds, "peak": 0.5, "warnings": []},
                }
        return {"field": "files", "name": name, "problem": UnsupportedAudio("this is text").problem()}

    async def _watched(self, request: Request) -> AsyncIterator[bytes]:
        async for chunk in request.stream():
            self.received_bytes += len(chunk)
            yield chunk


@dataclass
class InferenceDouble:
    """Answers a conversion with what it was asked."""

    ingest: IngestDouble
    problem: PlatformError | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)
    is_slow: bool = False
    left: int = 0

    def app(self) -> FastAPI:
        app = FastAPI()
        problems.install(app)

        @app.get("/readyz")
        async def readyz() -> JSONResponse:
            return JSONResponse({"status": "not ready", "checks": [{"name": "models", "ok": False}]}, status_code=503)

        @app.post("/speech")
        async def speech(request: Request) -> Response:
            order = await request.json()
            self.asked.append(order)
            if self.problem is not None:
                raise self.problem
            while self.is_slow:
                await asyncio.sleep(0.02)
                if await request.is_disconnected():
                    self.left += 1
                    return Response(status_code=499)
            headers = {"X-Voice-Version": "job_1", "X-Language": "en", "X-Characters-Left-Out": "0", "X-Inner": "no"}
            return Response(b"RIFF" + json.dumps(order).encode(), media_type="audio/wav", headers=headers)

        @app.post("/conversions")
        async def convert(request: Request) -> Response:
            order = await request.json()
            self.asked.append(order)
            if self.problem is not None:
                raise self.problem
            while self.is_slow:
                await asyncio.sleep(0.02)
                if await request.is_disconnected():
                    self.left += 1
                    return Response(status_code=499)
            assert order["upload_id"] in self.ingest.staged
            headers = {"X-Voice-Version": "job_1", "X-Voice-Sha256": "ab", "X-Real-Time-Factor": "0.1", "X-Inner": "no"}
            body = b"RIFF" + json.dumps(order).encode()
            return Response(body, media_type="audio/wav", headers=headers)

        return app
