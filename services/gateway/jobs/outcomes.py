"""What does a finished step leave with its job? Its manifest and figures, and what a kind of step tells besides."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.events import (
    RecordingsConverted,
    SpeechChecked,
    StepFinished,
    TextsSaid,
    VoicePublished,
    VoiceTrained,
)
from services.gateway.datasets import transcripts
from services.gateway.jobs.history import note
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.voices import registry

_FRAME = {*StepFinished.model_fields, "heard"}  # what was heard is the recordings'


async def keep(session: AsyncSession, job: Job, row: JobStep, event: StepFinished, now: datetime) -> None:
    """What the step made, into its row, the job, the job's log and, for a voice, the registry; written out at once."""
    row.manifest_path = event.manifest.path
    row.manifest_sha256 = event.manifest.sha256
    row.manifest_token = event.manifest.token
    row.result = event.model_dump(mode="json", exclude=_FRAME)
    row.finished_at = now
    note(session, job, now, f"{event.step} finished", {"worker": event.worker} | _plain(row.result))
    await session.flush()
    match event:
        case VoiceTrained():  # the figures of the training stay; what follows takes seconds
            job.current_step = job.total_steps = event.steps
            job.losses = {name: value for name, value in event.losses.items() if math.isfinite(value)}
        case RecordingsConverted():
            _count(job, event)
        case TextsSaid():
            told = {"texts": event.texts, "said": event.said, "failed": event.failed, "seconds": event.seconds}
            job.summary = (job.summary or {}) | told | {"is_partial": event.failed > 0}
        case SpeechChecked() if event.heard and job.dataset_id is not None:
            written = await transcripts.hear(session, job.dataset_id, event.heard)
            note(session, job, now, f"{written} transcripts by machine, which nobody has read", {"written": written})
        case VoicePublished():
            await _publish(session, job, event)


def _count(job: Job, event: RecordingsConverted) -> None:
    """The job's numbers; recordings that were refused when they came failed as well."""
    told = job.summary or {}
    failed = event.failed + len(told.get("refused", ()))
    job.summary = told | {
        "files": event.converted + failed,
        "converted": event.converted,
        "failed": failed,
        "seconds": event.seconds,
        "is_partial": failed > 0,
    }


async def _publish(session: AsyncSession, job: Job, event: VoicePublished) -> None:
    """The voice serves this job's version from now on, in the registry as on disk."""
    voice = await registry.publish(
        session,
        owner_id=job.owner_id,
        job_id=job.id,
        slug=event.voice,
        name=job.name,
        card=event.card,
        weights_sha256=event.weights_sha256,
        index_sha256=event.index_sha256,
        sample_rate=event.sample_rate,
        preset=event.preset,
        dataset_id=job.dataset_id,
        place=event.place,
    )
    job.model_id = voice.id


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """The plain values of a result, for a log line."""
    return {name: value for name, value in result.items() if isinstance(value, int | float | str | bool)}
