"""How does a voice come about without training? Imported, extracted from a training checkpoint, or merged of two.

The gateway opens no model file. It knows whose files wait in quarantine and which versions are meant; the trainer opens
them, tries them, and publishes a version like any other.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput
from libs.common.events import MakingOptions, StagedFile, VersionRef
from libs.common.invalid import first_at_fault
from libs.common.jobs import JobKind
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.inner import InnerProblem
from services.gateway.jobs import lifecycle, reading
from services.gateway.jobs.tables import Job
from services.gateway.parts import Parts
from services.gateway.staging import Form, Staged, release
from services.gateway.text import for_display
from services.gateway.voices import registry
from services.gateway.voices.schemas import MergeRequest, VoiceForm
from services.gateway.voices.tables import Voice

FILE_FIELDS = {"import": ("model", "index"), "extract": ("model", "index", "config")}


async def from_files(
    parts: Parts, caller: Caller, form: Form, tool: Literal["import", "extract"], *, job_id: str
) -> Job:
    """Opens a job that makes a voice from uploaded files, which wait in quarantine.

    Raises InvalidInput for a form without a model or with a file of another name, and what ingest said about a file
    that it did not take. Then nothing that was sent is kept.
    """
    uploads = [file.upload_id for file in form.files]
    try:
        asked = _form_of(form)
        files = _files_of(form, FILE_FIELDS[tool])
        options = MakingOptions(tool=tool, **asked.model_dump(exclude={"name"}), **files)
        async with parts.database.write() as session:
            repeated = await reading.opened_before(session, caller, job_id)
            job = repeated or await _open(session, caller, asked.name, options, job_id=job_id)
    except BaseException:
        await release(parts, uploads)
        raise
    if repeated is not None:
        await release(parts, uploads)
    return job


async def merged(session: AsyncSession, caller: Caller, request: MergeRequest, *, job_id: str) -> Job:
    """Opens a job that merges two of the caller's voices. Raises NotFound, VoiceNotReady."""
    if (repeated := await reading.opened_before(session, caller, job_id)) is not None:
        return repeated
    first = await registry.find_ready(session, caller, request.first)
    second = await registry.find_ready(session, caller, request.second)
    options = MakingOptions(tool="merge", first=served(first), second=served(second), share=request.share)
    return await _open(session, caller, request.name, options, job_id=job_id)


def served(voice: Voice) -> VersionRef:
    """The version of a ready voice that is served now."""
    assert voice.job_id is not None
    return VersionRef(voice=voice.slug, version=voice.job_id)


async def _open(session: AsyncSession, caller: Caller, name: str, options: MakingOptions, *, job_id: str) -> Job:
    voice = await registry.reserve(session, owner_id=caller.id, name=name)
    order = lifecycle.Order(
        id=job_id, owner_id=caller.id, kind=JobKind.model, name=voice.name, options=options, voice=voice.slug
    )
    job = await lifecycle.open_job(session, order)
    job.model_id = voice.id
    said = options.model_dump(mode="json", exclude_none=True, exclude={"share"} if options.tool != "merge" else None)
    audit.record(session, caller.id, f"voice.{options.tool}_asked", voice.id, job_id=job.id, **said)
    return job


def _form_of(form: Form) -> VoiceForm:
    """The plain fields; raises InvalidInput that names the first one at fault."""
    form.expect_only(*VoiceForm.model_fields)
    given = {name: value for name, value in form.fields.items() if value.strip()}
    try:
        return VoiceForm.model_validate(given)
    except ValidationError as error:
        raise first_at_fault(error) from None


def _files_of(form: Form, fields: tuple[str, ...]) -> dict[str, StagedFile]:
    if form.rejected:
        raise InnerProblem(form.rejected[0][1])
    files: dict[str, StagedFile] = {}
    for file in form.files:
        if file.field not in fields or file.field in files:
            what = "came twice" if file.field in files else "is not expected here"
            raise InvalidInput(
                f"a file in the field {file.field[:40]!r} {what}",
                field=file.field[:40],
                actions=(f"Send one file in each of: {', '.join(fields)}; only `model` is needed.",),
            )
        files[file.field] = _waiting(file)
    if "model" not in files:
        raise InvalidInput("the form has no model file", field="model", actions=("Send the voice as `model`.",))
    return files


def _waiting(file: Staged) -> StagedFile:
    return StagedFile(
        upload_id=file.upload_id, sha256=file.sha256, name=for_display(file.name, 255), size_bytes=file.size_bytes
    )
