"""How does a form full of recordings become staged uploads? Streamed to disk, examined side by side, all or nothing.

    body ─▶ parts ─▶ .staging/.new-…/original (SHA-256 on the way) ─▶ examiner ─▶ .staging/upl_…/   or a problem

The next part is received while the last ones are examined. A file that is refused leaves nothing and the others go on;
a request that is refused, or whose client goes away, leaves nothing at all.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import IO, Any

from libs.audio.formats import FAMILIES
from libs.common import metrics
from libs.common.errors import InvalidInput, TooLarge, Unavailable
from libs.common.logs import get_logger
from libs.common.multipart import Field, FileBegin, FileData, FileEnd, Limits, read_form
from libs.common.paths import Paths, StagedUpload
from libs.common.tasks import end
from services.ingest import staging
from services.ingest.examiners import Examiners, Refused
from services.ingest.settings import IngestSettings
from services.ingest.staging import Record, full_disk_is_named

log = get_logger("ingest.uploads")

NAME_LENGTH = 255
_BLOCK = 1024 * 1024
_DIRECTION = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True)
class Accepted:
    """One file that is staged."""

    field: str
    name: str
    upload_id: str
    sha256: str
    extension: str
    mime_type: str
    size_bytes: int
    duration_seconds: float
    report: dict[str, Any]


@dataclass(frozen=True)
class Rejected:
    """One file that was refused, with its problem."""

    field: str
    name: str
    problem: dict[str, Any]


@dataclass(frozen=True)
class Received:
    """What one form held, in its order."""

    fields: dict[str, str]
    files: list[Accepted | Rejected]


def display_name(name: str) -> str:
    """`name` as text for people: at most 255 characters, without control characters. It is never part of a path."""
    kept = "".join(c for c in name if unicodedata.category(c) not in ("Cc", "Cs", "Zl", "Zp") and c not in _DIRECTION)
    return kept.strip()[:NAME_LENGTH] or "unnamed"


class Uploads:
    """Receives forms."""

    def __init__(self, settings: IngestSettings, paths: Paths, examiners: Examiners) -> None:
        self._settings = settings
        self._paths = paths
        self._examiners = examiners

    async def receive(
        self, content_type: str, declared_bytes: int | None, body: AsyncIterable[bytes], *, are_models: bool = False
    ) -> Received:
        """Stages every file of the form in `body`, which is read as it comes.

        Model files (`are_models`) have limits of their own and are not opened here: they wait in quarantine. Raises
        InvalidInput for what is no form or stands still, TooLarge and TooMany at the limits, StorageFull, and what
        `body` raises. After an exception nothing of the request is staged.
        """
        limit = int(self._settings.upload_total_limit)
        if declared_bytes is not None and declared_bytes > limit:
            raise TooLarge(
                f"the request announces {declared_bytes} bytes, at most {limit} are accepted",
                limit_bytes=limit,
                actions=("Send the files in several requests.",),
            )
        settings = self._settings
        file_limit = int(settings.model_file_limit if are_models else settings.upload_file_limit)
        count_limit = settings.model_count_limit if are_models else settings.upload_count_limit
        reception = _Reception(settings, self._paths, self._examiners, are_models, file_limit, count_limit)
        try:
            return await reception.take(content_type, body)
        except BaseException:
            await asyncio.shield(reception.forget())
            raise


class _Incoming:
    """One file that is being received: in blocks to the disk, with its checksum."""

    def __init__(self, begin: FileBegin, paths: Paths) -> None:
        self.field = display_name(begin.field)
        self.name = display_name(begin.filename)
        self.is_named = bool(begin.filename)
        self.upload_id = staging.new_upload_id()
        self.size = 0
        self.is_too_large = False
        self.files: StagedUpload = paths.unfinished_upload(self.upload_id)
        self._sha = hashlib.sha256()
        self._file: IO[bytes] | None = None
        self._waiting = bytearray()

    @property
    def sha256(self) -> str:
        return self._sha.hexdigest()

    async def write(self, data: bytes) -> None:
        self.size += len(data)
        self._waiting += data
        if len(self._waiting) >= _BLOCK:
            await _whole(self._store)

    async def finish(self) -> None:
        await _whole(self._finish)

    def drop(self) -> None:
        """Forgets what was received."""
        self._waiting = bytearray()
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self.files.folder, ignore_errors=True)

    def _store(self) -> None:
        block, self._waiting = self._waiting, bytearray()
        with full_disk_is_named("the upload"):
            if self._file is None:
                self.files.folder.mkdir(parents=True)
                # Unbuffered: what closing would still write could fail on a full disk a second time.
                self._file = self.files.original.open("xb", buffering=0)
            view = memoryview(block)
            while view:
                view = view[self._file.write(view) :]
        self._sha.update(block)

    def _finish(self) -> None:
        self._store()
        assert self._file is not None
        with full_disk_is_named("the upload"):
            os.fsync(self._file.fileno())
        self._file.close()


@dataclass
class _Reception:
    """One request while it is received."""

    settings: IngestSettings
    paths: Paths
    examiners: Examiners
    are_models: bool
    file_limit: int
    count_limit: int
    fields: dict[str, str] = field(default_factory=dict)
    incoming: list[_Incoming] = field(default_factory=list)
    outcomes: list[asyncio.Task[Accepted | Rejected]] = field(default_factory=list)
    skipped: int = 0

    async def take(self, content_type: str, body: AsyncIterable[bytes]) -> Received:
        limits = Limits(
            total_bytes=int(self.settings.upload_total_limit),
            files=self.count_limit,
        )
        moving = _never_idle(body, self.settings.upload_idle.total_seconds())
        async with aclosing(moving), aclosing(read_form(content_type, moving, limits)) as events:
            async for event in events:
                match event:
                    case Field(name, value):
                        self.fields[name] = value
                    case FileBegin():
                        self.incoming.append(_Incoming(event, self.paths))
                    case FileData(data):
                        await self._data(self.incoming[-1], data)
                    case FileEnd():
                        await self._end(self.incoming[-1])
        return Received(self.fields, list(await asyncio.gather(*self.outcomes)))

    async def forget(self) -> None:
        """Stops what is going on and removes everything."""
        await end(self.outcomes)
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        for file in self.incoming:
            file.drop()
            staging.remove(self.paths, file.upload_id)

    async def _data(self, file: _Incoming, data: bytes) -> None:
        metrics.UPLOAD_BYTES.labels(self._kind).inc(len(data))
        if not file.is_too_large and file.size + len(data) <= self.file_limit:
            await file.write(data)
            return
        if not file.is_too_large:
            file.is_too_large = True
            self.skipped += file.size
            await _whole(file.drop)
        self.skipped += len(data)
        if self.skipped > self.file_limit + self.settings.upload_skip_limit:
            raise self._too_large(file, "The request was refused because of it.")

    async def _end(self, file: _Incoming) -> None:
        if file.is_too_large:
            self._settle(Rejected(file.field, file.name, self._too_large(file, "").problem()))
            return
        if not file.is_named and not file.size:
            return  # a browser's file input in which nothing was chosen
        await file.finish()
        look = self._set_aside if self.are_models else self._examine
        self.outcomes.append(asyncio.create_task(look(file), name="uploads.examine"))

    @property
    def _kind(self) -> str:
        return "model" if self.are_models else "recording"

    def _counted(self, outcome: Accepted | Rejected) -> Accepted | Rejected:
        if isinstance(outcome, Accepted):
            metrics.UPLOADS.labels(self._kind, "accepted").inc()
            metrics.UPLOAD_SOUND.inc(outcome.duration_seconds)
        else:
            metrics.UPLOADS.labels(self._kind, "refused").inc()
            metrics.UPLOAD_REFUSALS.labels(metrics.code_label(outcome.problem.get("code"))).inc()
        return outcome

    def _settle(self, outcome: Rejected) -> None:
        async def known() -> Accepted | Rejected:
            return self._counted(outcome)

        self.outcomes.append(asyncio.create_task(known()))

    def _too_large(self, file: _Incoming, then: str) -> TooLarge:
        limit = self.file_limit
        return TooLarge(
            f"The file {file.name!r} is larger than {limit / 1024**2:g} MB, the limit for one file. {then}".strip(),
            field=file.field,
            name=file.name,
            limit_bytes=limit,
        )

    async def _examine(self, file: _Incoming) -> Accepted | Rejected:
        try:
            report = await self.examiners.examine(file.files.original, file.files.wav)
        except (Refused, Unavailable) as error:
            problem = error.problem if isinstance(error, Refused) else error.problem()
            log.info("upload.refused", code=problem["code"], bytes=file.size)
            await _whole(file.drop)
            return self._counted(Rejected(file.field, file.name, problem))
        family = FAMILIES[report["container"]]
        record = Record(
            upload_id=file.upload_id,
            name=file.name,
            sha256=file.sha256,
            extension=family.extension.lstrip("."),
            mime_type=family.mime,
            size_bytes=file.size,
            duration_seconds=report["duration_seconds"],
        )
        await _whole(staging.complete, self.paths, record, report)
        return self._counted(Accepted(field=file.field, report=report, **vars(record)))

    async def _set_aside(self, file: _Incoming) -> Accepted | Rejected:
        """A model file as it came: whoever opens it does so elsewhere, and trusts nothing in it."""
        record = Record(
            upload_id=file.upload_id,
            name=file.name,
            sha256=file.sha256,
            extension="model",
            mime_type="application/octet-stream",
            size_bytes=file.size,
            duration_seconds=0.0,
        )
        await _whole(staging.complete, self.paths, record, {})
        return self._counted(Accepted(field=file.field, report={}, **vars(record)))


async def _whole(call: Callable[..., None], *arguments: Any) -> None:
    """A call in a thread. Who is cancelled meanwhile goes when it is over: nothing is written behind a clean-up."""
    thread = asyncio.ensure_future(asyncio.to_thread(call, *arguments))
    try:
        await asyncio.shield(thread)
    except asyncio.CancelledError:
        await asyncio.wait([thread])
        raise


async def _never_idle(body: AsyncIterable[bytes], seconds: float) -> AsyncGenerator[bytes, None]:
    """The chunks of `body`; raises InvalidInput when none comes for so long."""
    chunks = aiter(body)
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise InvalidInput(
                f"nothing of the request came for {seconds:g} s; it was given up",
                field="body",
                actions=("Send the files again, fewer at a time on a slow connection.",),
            ) from None
        yield chunk
