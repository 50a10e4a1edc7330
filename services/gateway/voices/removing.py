"""How does a voice go away? Out of use at once; then its folder, its copies, and the runs that made it; its slug stays.

The row says `deleting` until nothing is left, so whatever is interrupted is gone on with at the next sweep or start.
"""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from sqlalchemy import select, update

from libs.common.errors import Conflict, PlatformError, Unavailable
from libs.common.jobs import ACTIVE, MAKES_VOICE, Step
from libs.common.logs import get_logger
from libs.common.paths import version_prefix
from libs.common.storage import delete_all
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import utcnow
from services.gateway.etags import check_match, etag
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.one_by_one import one_by_one
from services.gateway.parts import Parts
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice, VoiceStatus

log = get_logger("gateway.voices")

OF_THE_DATASET = frozenset({Step.validate, Step.preprocess})
"""Steps whose results are made of recordings alone: they go with the dataset, not with the voice."""


async def remove(parts: Parts, caller: Caller, key: str, if_match: str | None) -> None:
    """Raises NotFound, PreconditionFailed, and Conflict while a job trains the voice."""
    async with parts.database.write() as session:
        voice = await registry.find(session, caller, key, for_update=True)
        check_match(if_match, etag(voice.id, voice.version))
        making = (Job.voice == voice.slug, Job.kind.in_(MAKES_VOICE), Job.status.in_(ACTIVE))
        job = await session.scalar(select(Job.id).where(*making).limit(1))
        if job is not None:
            raise Conflict(f"job {job} trains this voice", actions=("Wait for the job or cancel it, then delete.",))
        voice.status = VoiceStatus.deleting.value
        voice.updated_at = utcnow()
        audit.record(session, caller.id, "voice.deleted", voice.id, slug=voice.slug)
    try:
        await _finish(parts, voice.id, voice.slug)
    except PlatformError as error:
        # The deletion holds in the database; what cannot be finished now, the sweeper finishes.
        log.warning("deletion.postponed", voice=voice.slug, detail=error.detail)


async def finish(parts: Parts) -> None:
    """Goes on with deletions that could not be finished."""

    async def voice(voice_id: str, slug: str) -> None:
        await _finish(parts, voice_id, slug)

    left = select(Voice.id, Voice.slug).where(Voice.status == VoiceStatus.deleting.value)
    await one_by_one(parts.database, left, Voice.id, voice)


async def _finish(parts: Parts, voice_id: str, slug: str) -> None:
    """Raises Unavailable when the folder, the object store or ingest resists."""
    await asyncio.to_thread(_remove_folder, parts.paths.voice(slug).folder)
    await asyncio.to_thread(delete_all, parts.storage, parts.settings.voice_models_bucket, version_prefix(slug))
    await _remove_runs(parts, slug)
    async with parts.database.write() as session:
        await session.execute(
            update(Voice)
            .where(Voice.id == voice_id)
            .values(status=VoiceStatus.deleted.value, name="", description="", card={}, updated_at=utcnow())
        )


async def _remove_runs(parts: Parts, slug: str) -> None:
    """The weights, checkpoints and indices that its jobs left beside the dataset."""
    async with parts.database.read() as session:
        made_it = (Job.voice == slug, Job.kind.in_(MAKES_VOICE))
        jobs = (await session.execute(select(Job.id, Job.experiment).where(*made_it))).all()
        steps = await session.scalars(select(JobStep).where(JobStep.job_id.in_([job_id for job_id, _ in jobs])))
        kept: dict[str, dict[str, int]] = {job_id: {} for job_id, _ in jobs}
        for step in steps:
            if step.step in OF_THE_DATASET and step.manifest_token is not None:
                kept[step.job_id][step.step] = step.manifest_token
    for job_id, experiment in jobs:
        await parts.ingest.call("POST", f"/experiments/{experiment}/jobs/{job_id}/sweep", json={"keep": kept[job_id]})


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink() or not folder.exists():
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise Unavailable(f"the voice's folder {folder} cannot be removed: {error.strerror}") from error
