"""How does a form become a conversion job? Checked, its recordings moved to the job, then queued in one transaction.

staged files ─▶ checks ─▶ ingest moves them to the job's folder ─▶ transaction: job + command
                              what a kill leaves here without a job, the sweeper removes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import InvalidInput, NotFound, PlatformError
from libs.common.events import ConversionInput
from libs.common.jobs import JobKind
from libs.common.logs import get_logger
from services.gateway import workers
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.conversion.convert import VOICE_FIELDS, ConversionOptions, options_of, voice_of
from services.gateway.datasets import catalogue, recordings
from services.gateway.datasets.receiving import NothingAccepted
from services.gateway.datasets.tables import Dataset, Sample
from services.gateway.inner import InnerProblem
from services.gateway.jobs import lifecycle, reading
from services.gateway.jobs.tables import Job
from services.gateway.parts import Parts
from services.gateway.staging import Form, release
from services.gateway.text import NAME_LENGTH, for_display
from services.gateway.voices import registry

log = get_logger("gateway.conversions")

_FIELDS = (*VOICE_FIELDS, "priority", "sample_ids", "dataset_id", "name")
_SEPARATORS = re.compile(r"[,\s]+")


@dataclass(frozen=True)
class Wanted:
    """What the fields of the form ask for."""

    voice: str
    options: ConversionOptions
    samples: tuple[str, ...]
    dataset: str | None
    name: str
    priority: int


async def start(parts: Parts, caller: Caller, form: Form, job_id: str) -> Job:
    """A queued job over the recordings that were sent and those that are named.

    Raises InvalidInput, NotFound (voice, dataset, sample), VoiceNotReady, and what ingest says. Then nothing is kept.
    """
    uploads = [file.upload_id for file in form.files]
    try:
        wanted = _wanted(form)
        alive = await workers.announced(parts.connected)
        async with parts.database.read() as session:
            repeated = await reading.opened_before(session, caller, job_id)
            if repeated is None:
                await registry.find_ready(session, caller, wanted.voice)
                await _inputs(session, caller, wanted, form, parts.settings.conversion_files)
                workers.check_pitch(alive, "inference", wanted.options.f0_method)
        if repeated is not None:
            await release(parts, uploads)
            return repeated
        if uploads:
            timeout = parts.settings.upload_timeout.total_seconds()
            body = {"upload_ids": uploads}
            await parts.ingest.call("POST", f"/jobs/{job_id}/files", json=body, timeout=timeout)
    except BaseException:
        await release(parts, uploads)
        raise
    try:
        async with parts.database.write() as session:
            return await _open(session, caller, wanted, form, job_id, parts.settings.conversion_files)
    except PlatformError:
        await drop_sent(parts, job_id)
        raise


async def drop_sent(parts: Parts, job_id: str) -> None:
    """Removes what was sent with a job; what cannot be removed now, the sweeper removes later."""
    try:
        await parts.ingest.call("DELETE", f"/jobs/{job_id}/files")
    except PlatformError as error:
        log.warning("conversion.recordings_stay", job_id=job_id, detail=error.detail)


def _wanted(form: Form) -> Wanted:
    form.expect_only(*ConversionOptions.model_fields, *_FIELDS)
    fields = {name: value.strip() for name, value in form.fields.items() if value.strip()}
    voice = voice_of(fields)
    priority = fields.get("priority", "50")
    # Its length first: Python refuses to read a number of thousands of digits.
    if not (priority.isascii() and priority.isdigit() and len(priority) <= 3 and int(priority) <= 100):
        raise InvalidInput(f"priority is {priority[:20]!r}; it must lie in 0…100", field="priority")
    samples = tuple(dict.fromkeys(part for part in _SEPARATORS.split(fields.get("sample_ids", "")) if part))
    dataset = fields.get("dataset_id")
    if samples and dataset:
        raise InvalidInput("name samples or a whole dataset, not both", field="dataset_id")
    options = options_of(form.fields)
    if not form.files and not samples and not dataset:
        raise _nothing(form)
    return Wanted(
        voice=voice,
        options=options,
        samples=samples,
        dataset=dataset,
        name=for_display(fields.get("name", ""), NAME_LENGTH),
        priority=int(priority),
    )


def _nothing(form: Form) -> PlatformError:
    """Every file was refused, or none came."""
    if not form.rejected:
        actions = ("Send files as `files`, or name `sample_ids` or `dataset_id`.",)
        return InvalidInput("the form has no recording", field="files", actions=actions)
    listed = [{"name": name, "problem": problem} for name, problem in form.rejected]
    if len(listed) == 1:
        return InnerProblem(form.rejected[0][1] | {"rejected": listed})
    return NothingAccepted(f"all {len(listed)} files were refused", rejected=listed)


async def _inputs(
    session: AsyncSession, caller: Caller, wanted: Wanted, form: Form, limit: int
) -> tuple[list[ConversionInput], Dataset | None]:
    """The recordings in their order, and the dataset that some of them are in."""
    dataset, samples = await _samples(session, caller, wanted)
    count = len(samples) + len(form.files)
    if count > limit:
        raise InvalidInput(
            f"{count} recordings are more than one job takes, which is {limit}",
            field="files",
            limit=limit,
            actions=("Make several jobs of it.",),
        )
    if not count:
        raise InvalidInput(f"the dataset {wanted.dataset!r} has no recording", field="dataset_id")
    found: list[dict[str, Any]] = [
        {
            "name": sample.original_name,
            "sha256": sample.sha256,
            "extension": sample.extension,
            "seconds": sample.duration_seconds,
            "dataset": dataset.slug if dataset else "",
        }
        for sample in samples
    ]
    found += [
        {
            "name": for_display(file.name, 255) or "recording",
            "sha256": file.sha256,
            "extension": file.extension,
            "seconds": file.duration_seconds,
        }
        for file in form.files
    ]
    return [ConversionInput(number=number, **values) for number, values in enumerate(found, start=1)], dataset


async def _samples(session: AsyncSession, caller: Caller, wanted: Wanted) -> tuple[Dataset | None, list[Sample]]:
    if wanted.dataset:
        dataset = await catalogue.find(session, caller, wanted.dataset)
        return dataset, list(await catalogue.ready_samples(session, dataset.id))
    found: list[Sample] = []
    its: Dataset | None = None
    for sample_id in wanted.samples:
        sample, dataset = await recordings.find(session, caller, sample_id)
        if its is not None and its.id != dataset.id:
            raise InvalidInput("the samples are of several datasets; a job takes those of one", field="sample_ids")
        its = dataset
        found.append(sample)
    return its, found


async def _open(session: AsyncSession, caller: Caller, wanted: Wanted, form: Form, job_id: str, limit: int) -> Job:
    """The transaction; everything is looked up again, because the files took their time."""
    voice = await registry.find_ready(session, caller, wanted.voice)
    inputs, dataset = await _inputs(session, caller, wanted, form, limit)
    if dataset is not None and not await catalogue.hold(session, dataset.id):
        raise NotFound(f"there is no dataset {dataset.slug!r}")
    order = lifecycle.Order(
        id=job_id,
        owner_id=caller.id,
        kind=JobKind.conversion,
        name=wanted.name or (inputs[0].name if len(inputs) == 1 else f"{len(inputs)} recordings as {voice.name}"),
        dataset_id=dataset.id if dataset else None,
        dataset=dataset.slug if dataset else None,
        inputs=inputs,
        options=wanted.options.model_dump(mode="json"),
        voice=voice.slug,
        priority=wanted.priority,
    )
    job = await lifecycle.open_job(session, order)
    job.model_id = voice.id
    job.total_steps = len(inputs)
    refused = [{"name": for_display(name, 255), "problem": problem} for name, problem in form.rejected]
    job.summary = {"files": len(inputs) + len(refused), "refused": refused}
    audit.record(session, caller.id, "voice.used", voice.id, job_id=job_id, recordings=len(inputs))
    return job
