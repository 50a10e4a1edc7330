"""How far is a job? The workers' progress reaches the job's row every few seconds, and never runs backwards."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import timedelta

from libs.common.bus import Bus
from libs.common.errors import PlatformError
from libs.common.events import StepProgress
from libs.common.jobs import overall_progress
from libs.common.logs import get_logger
from libs.common.tasks import together
from services.gateway.database import Database, utcnow
from services.gateway.jobs import projection
from services.gateway.jobs.history import note
from services.gateway.jobs.lifecycle import AFTER_TRAINING
from services.gateway.jobs.tables import Job, JobStep

log = get_logger("jobs.progress")

DURABLE = "gateway-progress"


class ProgressWriter:
    """Keeps the newest progress of each job and writes it at most once per `every`; the rest is for feeds."""

    def __init__(self, database: Database, bus: Bus, every: timedelta, max_retries: int) -> None:
        self._database = database
        self._bus = bus
        self._every = every.total_seconds()
        self._max_retries = max_retries
        self._newest: dict[str, tuple[int, StepProgress]] = {}
        self._written: dict[str, float] = {}
        self._said: dict[str, str] = {}

    async def run(self) -> None:
        """Endless."""
        await together(self._listen, self._write_often)

    async def _listen(self) -> None:
        async for delivery in self._bus.progress(DURABLE):
            try:
                message = delivery.envelope.open()
            except ValueError as error:
                log.warning("progress.unreadable", subject=delivery.subject, error=str(error))
                continue
            if isinstance(message, StepProgress):
                self.take(delivery.sequence, message)

    def take(self, sequence: int, progress: StepProgress) -> None:
        """Remembers a message when it is the newest of its job by stream sequence."""
        known = self._newest.get(progress.job_id)
        if known is None or sequence > known[0]:
            self._newest[progress.job_id] = (sequence, progress)

    async def _write_often(self) -> None:
        while True:
            await asyncio.sleep(min(self._every / 5, 1.0))
            now = time.monotonic()
            due = [job for job in self._newest if now - self._written.get(job, -self._every) >= self._every]
            for job_id in due:
                sequence, progress = self._newest.pop(job_id)
                self._written[job_id] = now
                try:
                    await self.write(sequence, progress)
                except Exception as error:  # the next message brings newer numbers
                    log.warning("progress.not_written", job_id=job_id, error=f"{type(error).__name__}: {error}")
            for job_id in [job for job, at in self._written.items() if now - at > 20 * self._every + 60]:
                self._written.pop(job_id)
                self._said.pop(job_id, None)

    async def write(self, sequence: int, progress: StepProgress) -> bool:
        """One message into its job's row; False when the job is over, at another step, or knows a newer one."""
        async with self._database.write() as session:
            job = await session.get(Job, progress.job_id, with_for_update=True)
            if job is None or job.is_over or job.phase != progress.step.value or sequence <= job.progress_sequence:
                return False
            row = await session.get(JobStep, (job.id, progress.step.value))
            if row is None or row.manifest is not None or progress.token < row.token:
                return False
            job.progress_sequence = sequence
            percent = overall_progress(job.job_kind, progress.step, progress.fraction, job.preset)
            job.progress = max(job.progress, percent)
            if progress.step not in AFTER_TRAINING:
                job.current_step = max(progress.done, 0)
                job.total_steps = max(progress.total, 0)
            # JSON has no NaN: what diverged is told by the step's failure.
            if progress.loss is not None and math.isfinite(progress.loss):
                job.current_loss = progress.loss
            if progress.losses:
                job.losses = {name: value for name, value in progress.losses.items() if math.isfinite(value)}
            job.eta_seconds = progress.eta_seconds
            job.version += 1
            if progress.message and self._said.get(job.id) != progress.message:
                self._said[job.id] = progress.message
                note(session, job, utcnow(), progress.message, {"worker": progress.worker}, kind="message")
        try:
            await projection.renew(self._database, self._bus, job.id, self._max_retries)
        except PlatformError as error:
            log.debug("progress.projection_behind", job_id=job.id, error=error.detail)
        return True
