"""How do uploaded files become samples of a dataset? Rows first, then the files, then the rows say `ready`.

    staged files ─▶ one transaction: dataset + rows `staged` ─▶ ingest moves the files ─▶ rows `ready`

Whatever is killed in between, `repair` finds the rows that still say `staged` and finishes or removes them: no row
stays that points to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Conflict, InvalidInput, NotFound, PlatformError, VoiceSampleNotFound
from libs.common.logs import get_logger
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import new_id, one_at_a_time, utcnow
from services.gateway.datasets import catalogue, metadata, speakers, transcripts
from services.gateway.datasets.tables import GONE, Dataset, Sample, SampleStatus
from services.gateway.inner import InnerProblem
from services.gateway.one_by_one import one_by_one
from services.gateway.parts import Parts
from services.gateway.staging import Form, Staged, release
from services.gateway.text import NAME_LENGTH, for_display

log = get_logger("gateway.datasets")

_ROUNDS = 5


class NothingAccepted(InvalidInput):
    """None of the files was accepted"""

    code = "nothing_accepted"
    suggested_actions = ("See the problem of each file in `rejected`.",)


@dataclass(frozen=True)
class Target:
    """Where the files shall go: a dataset by id or slug, or the caller's dataset of a name, made if absent."""

    dataset_id: str | None
    name: str | None
    new_id: str


@dataclass(frozen=True)
class Said:
    """What a form says about its files. An empty transcript, and None for the speaker: nothing is said of it."""

    transcript: str = ""
    speaker_id: int | None = None


@dataclass
class Received:
    """What became of an upload. `duplicates` are the ids of samples whose content was in the dataset already."""

    dataset: Dataset
    renamed: bool
    samples: list[Sample] = field(default_factory=list)
    duplicates: set[str] = field(default_factory=set)
    rejected: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def target_of(fields: dict[str, str], query: dict[str, str], dataset_id: str) -> Target:
    """Reads the target from the form or the query; raises InvalidInput when neither names one that can be."""
    given = {k: v for k, v in (query | fields).items() if v.strip()}
    if "dataset_id" in given:
        return Target(given["dataset_id"].strip(), None, dataset_id)
    name = (given.get("dataset_name") or given.get("exp_name") or "").strip()
    if not name:
        raise InvalidInput(
            "the dataset is not named",
            field="dataset_name",
            actions=("Send one of the fields dataset_id, dataset_name, exp_name, before or after the files.",),
        )
    if len(name) > NAME_LENGTH:
        raise InvalidInput(
            f"the name has {len(name)} characters, at most {NAME_LENGTH} are accepted",
            field="dataset_name",
            limit=NAME_LENGTH,
            actions=("Use a shorter name.",),
        )
    if for_display(name, NAME_LENGTH) != name:
        raise InvalidInput("a name has no control characters", field="dataset_name")
    return Target(None, name, dataset_id)


async def receive(parts: Parts, caller: Caller, form: Form, query: dict[str, str], dataset_id: str) -> Received:
    """Makes the files of `form` samples. Raises InvalidInput, NotFound, Conflict; then nothing is kept of it.

    When ingest goes away in the middle, Unavailable is raised and the rows are repaired later; sending the same files
    again is always safe.
    """
    try:
        target = target_of(form.fields, query, dataset_id)
        said = Said(_transcript(form), speakers.read(form.fields.get("speaker_id", "")))
        if not form.files:
            raise _nothing(form)
        received, claims, surplus = await _write_rows(parts, caller, target, form, said)
    except BaseException:
        await release(parts, [file.upload_id for file in form.files])
        raise
    await release(parts, surplus)
    received.rejected += form.rejected
    await _claim_all(parts, received, claims)
    if claims:
        await _check_not_deleted(parts, received.dataset)
        await metadata.write(parts, received.dataset.id, received.dataset.slug)
    return received


def _transcript(form: Form) -> str:
    text = form.fields.get("transcript", "").replace("\0", "").encode("utf-8", "replace").decode().strip()
    if text and len(form.files) + len(form.rejected) > 1:
        raise InvalidInput(
            "a transcript belongs to one file",
            field="transcript",
            actions=("Send the files that have transcripts one by one.",),
        )
    if len(text) > transcripts.LONGEST_TEXT:
        raise InvalidInput(f"the transcript is longer than {transcripts.LONGEST_TEXT} characters", field="transcript")
    return text


def _nothing(form: Form) -> PlatformError:
    if not form.rejected:
        return InvalidInput("the form has no file", field="files", actions=("Send at least one file as `files`.",))
    listed = [{"name": name, "problem": problem} for name, problem in form.rejected]
    if len(form.rejected) == 1:
        return InnerProblem(form.rejected[0][1] | {"rejected": listed})
    return NothingAccepted(f"all {len(listed)} files were refused", rejected=listed)


async def _write_rows(
    parts: Parts, caller: Caller, target: Target, form: Form, said: Said
) -> tuple[Received, dict[str, str], list[str]]:
    """The transaction: what was received, uploads to be claimed by sample id, and uploads that are not needed."""
    for last in [False] * (_ROUNDS - 1) + [True]:
        try:
            async with parts.database.write() as session:
                dataset, renamed = await _resolve(session, caller, target)
                received = Received(dataset, renamed)
                claims: dict[str, str] = {}
                surplus: list[str] = []
                for file in form.files:
                    await _add(session, caller, received, file, said, claims, surplus)
                if claims:
                    audit.record(session, caller.id, "sample.received", dataset.id, kind="dataset", count=len(claims))
                return received, claims, surplus
        except IntegrityError:
            # PostgreSQL: another request brought the same file to the same dataset at the same moment.
            if last:
                raise Conflict("another upload writes the same files", retryable=True) from None
    raise AssertionError


async def _resolve(session: AsyncSession, caller: Caller, target: Target) -> tuple[Dataset, bool]:
    if target.dataset_id is not None:
        return await catalogue.find(session, caller, target.dataset_id), False
    assert target.name is not None
    await one_at_a_time(session, "dataset", caller.id, target.name)
    known = await catalogue.find_by_name(session, caller, target.name)
    if known is not None:
        return known, False
    return await catalogue.create(session, caller, dataset_id=target.new_id, name=target.name)


async def _add(
    session: AsyncSession,
    caller: Caller,
    received: Received,
    file: Staged,
    said: Said,
    claims: dict[str, str],
    surplus: list[str],
) -> None:
    dataset = received.dataset
    row = await session.scalar(
        select(Sample).where(Sample.dataset_id == dataset.id, Sample.sha256 == file.sha256).with_for_update()
    )
    if row is None:
        row = Sample(
            id=new_id("smp"),
            dataset_id=dataset.id,
            owner_id=dataset.owner_id,
            sha256=file.sha256,
            extension=file.extension,
            original_name=for_display(file.name, 255),
            mime_type=file.mime_type[:100],
            size_bytes=file.size_bytes,
            duration_seconds=file.duration_seconds,
            transcript=said.transcript,
            speaker_id=said.speaker_id or 0,
            status=SampleStatus.staged.value,
            upload_id=file.upload_id,
            report=file.report,
        )
        session.add(row)
        await session.flush()
        claims[row.id] = file.upload_id
    elif row.id in claims or row.status == SampleStatus.ready.value:
        surplus.append(file.upload_id)
        if row.id not in claims:
            _tell(session, caller, row, said)
        received.duplicates.add(row.id)
        if row in received.samples:
            return
    elif row.status == SampleStatus.deleting.value:
        surplus.append(file.upload_id)
        problem = Conflict("the same recording is being deleted", retryable=True).problem()
        received.rejected.append((file.name, problem))
        return
    else:
        # An earlier upload of it never got its file: this one brings it.
        row.upload_id, row.updated_at, row.extension = file.upload_id, utcnow(), file.extension
        _tell(session, caller, row, said)
        claims[row.id] = file.upload_id
    received.samples.append(row)


def _tell(session: AsyncSession, caller: Caller, row: Sample, said: Said) -> None:
    """A recording that was there already gets what this form says of it, and keeps the rest."""
    if said.transcript:
        transcripts.tell(row, said.transcript)
    if said.speaker_id is not None and speakers.tell(row, said.speaker_id):
        audit.record(session, caller.id, "sample.changed", row.id, fields=["speaker_id"])


async def _claim_all(parts: Parts, received: Received, claims: dict[str, str]) -> None:
    """Lets ingest move the files, all at once or, when one is lost, one by one."""
    if not claims:
        return
    slug = received.dataset.slug
    try:
        await _move(parts, slug, list(claims.values()))
        claimed = set(claims)
    except NotFound:
        claimed = set()
        for sample_id, upload_id in claims.items():
            try:
                await _move(parts, slug, [upload_id])
                claimed.add(sample_id)
            except NotFound:
                log.warning("sample.lost", sample=sample_id, upload_id=upload_id)
    lost = [sample for sample in received.samples if sample.id in claims and sample.id not in claimed]
    await _settle(parts, claimed, {sample.id for sample in lost})
    for sample in received.samples:
        if sample.id in claimed:
            sample.status = SampleStatus.ready.value
    for sample in lost:
        received.samples.remove(sample)
        received.rejected.append((sample.original_name, VoiceSampleNotFound("the file was lost on its way").problem()))


async def _check_not_deleted(parts: Parts, dataset: Dataset) -> None:
    """Raises NotFound when the dataset was deleted while its files were on their way; none of them stays."""
    async with parts.database.read() as session:
        status = await session.scalar(select(Dataset.status).where(Dataset.id == dataset.id))
    if status in GONE:
        await parts.ingest.call("DELETE", f"/datasets/{dataset.slug}")
        raise NotFound(f"the dataset {dataset.slug!r} was deleted while the files came")


async def _move(parts: Parts, slug: str, upload_ids: Sequence[str]) -> None:
    """Raises NotFound when ingest does not know one of them, Unavailable when it is away."""
    timeout = parts.settings.upload_timeout.total_seconds()
    try:
        await parts.ingest.call(
            "POST", f"/datasets/{slug}/files", json={"upload_ids": list(upload_ids)}, timeout=timeout
        )
    except InnerProblem as error:
        if error.body.get("status") == 404:
            raise NotFound(error.detail) from error
        raise


async def _settle(parts: Parts, claimed: set[str], lost: set[str]) -> None:
    async with parts.database.write() as session:
        staged = Sample.status == SampleStatus.staged.value
        if claimed:
            await session.execute(
                update(Sample)
                .where(Sample.id.in_(claimed), staged)
                .values(status=SampleStatus.ready.value, upload_id=None, updated_at=utcnow())
            )
        if lost:
            await session.execute(delete(Sample).where(Sample.id.in_(lost), staged))


async def repair(parts: Parts) -> None:
    """Finishes what a killed gateway or an absent ingest left `staged` for longer than STAGED_LIFETIME.

    The staged file is claimed again; when ingest has it in the dataset already, the row is ready; otherwise it goes.
    """

    async def settle(sample_id: str, upload_id: str | None, sha256: str, slug: str) -> None:
        await _repair(parts, sample_id, upload_id, sha256, slug)

    before = utcnow() - parts.settings.staged_lifetime
    staged = (
        select(Sample.id, Sample.upload_id, Sample.sha256, Dataset.slug)
        .join(Dataset, Dataset.id == Sample.dataset_id)
        .where(Sample.status == SampleStatus.staged.value, Sample.updated_at < before)
    )
    await one_by_one(parts.database, staged, Sample.id, settle)


async def _repair(parts: Parts, sample_id: str, upload_id: str | None, sha256: str, slug: str) -> None:
    try:
        if upload_id is None:
            raise NotFound
        await _move(parts, slug, [upload_id])
        is_there = True
    except NotFound:
        is_there = await _has_file(parts, slug, sha256)
    await _settle(parts, {sample_id} if is_there else set(), set() if is_there else {sample_id})
    log.info("sample.repaired", sample=sample_id, kept=is_there)


async def _has_file(parts: Parts, slug: str, sha256: str) -> bool:
    try:
        async with parts.ingest.stream("GET", f"/datasets/{slug}/files/{sha256}/audio", params={"form": "original"}):
            return True
    except InnerProblem as error:
        if error.body.get("status") == 404:
            return False
        raise
