"""How does a voice go away? Out of use at once; its folder as soon as it can be removed; its slug stays taken."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

from sqlalchemy import select, update

from libs.common.errors import Conflict
from libs.common.jobs import ACTIVE
from libs.common.logs import get_logger
from services.gateway.accounts.current import Caller
from services.gateway.audit import audit
from services.gateway.database import utcnow
from services.gateway.etags import check_match, etag
from services.gateway.jobs.tables import Job
from services.gateway.parts import Parts
from services.gateway.voices import registry
from services.gateway.voices.tables import Voice, VoiceStatus

log = get_logger("gateway.voices")


async def remove(parts: Parts, caller: Caller, key: str, if_match: str | None) -> None:
    """Raises NotFound, PreconditionFailed, and Conflict while a job trains the voice."""
    async with parts.database.write() as session:
        voice = await registry.find(session, caller, key, for_update=True)
        check_match(if_match, etag(voice.id, voice.version))
        job = await session.scalar(select(Job.id).where(Job.voice == voice.slug, Job.status.in_(ACTIVE)).limit(1))
        if job is not None:
            raise Conflict(f"job {job} trains this voice", actions=("Wait for the job or cancel it, then delete.",))
        voice.status = VoiceStatus.deleting.value
        voice.updated_at = utcnow()
        audit.record(session, caller.id, "voice.deleted", voice.id, slug=voice.slug)
    await _finish(parts, voice.id, voice.slug)


async def finish(parts: Parts) -> None:
    """Goes on with deletions that could not be finished."""
    async with parts.database.read() as session:
        statement = select(Voice.id, Voice.slug).where(Voice.status == VoiceStatus.deleting.value).limit(100)
        left = (await session.execute(statement)).all()
    for voice_id, slug in left:
        await _finish(parts, voice_id, slug)


async def _finish(parts: Parts, voice_id: str, slug: str) -> None:
    folder = parts.paths.voice(slug).folder
    try:
        await asyncio.to_thread(_remove_folder, folder)
    except OSError as error:
        # In containers the gateway may only read MODELS_ROOT. Nobody can use the voice; its files wait for an operator.
        log.warning("voice.folder_stays", folder=str(folder), error=error.strerror)
        return
    async with parts.database.write() as session:
        await session.execute(
            update(Voice)
            .where(Voice.id == voice_id)
            .values(status=VoiceStatus.deleted.value, name="", description="", card={}, updated_at=utcnow())
        )


def _remove_folder(folder: Path) -> None:
    if folder.is_symlink() or not folder.exists():
        return
    shutil.rmtree(folder)
