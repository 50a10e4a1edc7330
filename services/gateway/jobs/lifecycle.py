"""What becomes of a job? Every change of its state happens here, in one transaction with its log and its messages.

    open ▶ queued ▶ StepStarted ▶ running ─ StepFinished ▶ next step's command … last step ▶ completed
                                     │ StepDelayed ▶ delayed (the worker tries again by itself)
                                     ├ StepFailed ▶ failed          ┐ a person's retry: attempt + 1, from the
                                     └ StepCancelled ▶ cancelled    ┘ step that was not finished

What a worker says about an earlier attempt, a step that is done or a job that is over changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from libs.common.errors import Conflict, IllegalTransition
from libs.common.events import (
    Data,
    ManifestRef,
    StepCancelled,
    StepDelayed,
    StepEvent,
    StepFailed,
    StepFinished,
    StepStarted,
)
from libs.common.jobs import (
    MAKES_VOICE,
    WORKS_IN_DATASET,
    JobKind,
    JobState,
    QueueState,
    Step,
    check_transition,
    lane_of,
    next_step,
)
from libs.common.jobs import overall_progress as progress_at
from libs.common.logs import get_logger
from libs.common.paths import WITHOUT_DATASET
from services.gateway.audit import audit
from services.gateway.database import utcnow
from services.gateway.datasets import catalogue
from services.gateway.jobs import commands, outbox, outcomes
from services.gateway.jobs.history import note
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.jobs.transitions import end, move, tell
from services.gateway.voices import registry

log = get_logger("jobs")

AFTER_TRAINING = frozenset({Step.index, Step.evaluate, Step.publish})


@dataclass(frozen=True)
class Order:
    """What somebody wants to have done. `dataset` and `voice` are slugs; some kinds of jobs have no dataset.

    `options` are the kind's own: a model of `events.py`, or plain values.
    """

    id: str
    owner_id: str
    kind: JobKind
    name: str
    options: Data | Mapping[str, Any]
    dataset_id: str | None = None
    dataset: str | None = None
    inputs: Sequence[Data] = ()
    preset: str = ""
    voice: str | None = None
    priority: int = 50
    estimated_seconds: float | None = None
    estimated_cost: float | None = None


async def open_job(session: AsyncSession, order: Order) -> Job:
    """A new job, queued, with its first command in the outbox; raises Conflict when its dataset is being worked on."""
    now = utcnow()
    job = Job(
        id=order.id,
        owner_id=order.owner_id,
        kind=order.kind.value,
        name=order.name,
        dataset_id=order.dataset_id,
        dataset=order.dataset,
        experiment=order.dataset if order.dataset and order.kind in WORKS_IN_DATASET else WITHOUT_DATASET,
        voice=order.voice,
        preset=order.preset,
        options=order.options.model_dump(mode="json") if isinstance(order.options, Data) else dict(order.options),
        inputs=[item.model_dump(mode="json") for item in order.inputs],
        priority=order.priority,
        status=JobState.pending.value,
        attempt=1,
        version=1,
        retry_count=0,
        progress=0.0,
        current_step=0,
        total_steps=0,
        losses={},
        progress_sequence=0,
        estimated_seconds=order.estimated_seconds,
        estimated_cost=order.estimated_cost,
        created_at=now,
    )
    session.add(job)
    await _flush_alone(session, job)
    note(session, job, now, f"{job.kind} job opened", {"to": JobState.pending.value}, kind="transition")
    audit.record(session, order.owner_id, "job.opened", job.id, dataset=job.dataset, preset=job.preset)
    first = next_step(order.kind, None, order.preset)
    assert first is not None
    await _queue(session, job, first, now, actor=order.owner_id)
    return job


async def apply(session: AsyncSession, event: StepEvent) -> bool:
    """What a worker said, applied to its job; False when it came too late or out of turn and changed nothing."""
    job = await session.get(Job, event.job_id, with_for_update=True)
    if job is None:
        log.warning("jobs.event_of_unknown_job", job_id=event.job_id, fact=event.fact)
        return False
    row = await session.get(JobStep, (job.id, event.step.value))
    refused = _out_of_turn(job, row, event)
    if refused or row is None:
        log.info("jobs.event_ignored", job_id=job.id, fact=event.fact, step=event.step.value, reason=refused)
        return False
    now = utcnow()
    row.token = max(row.token, event.token)
    row.worker = event.worker or row.worker
    match event:
        case StepStarted():
            _begin(session, job, row, now)
            note(session, job, now, f"{event.step} started", {"worker": event.worker, "token": event.token})
        case StepDelayed():
            await _delayed(session, job, row, event, now)
        case StepFailed():
            row.failures = job.retry_count = event.failures
            job.last_error = event.problem
            if job.cancel_requested_at is not None:
                await end(session, job, JobState.cancelled, now)
            else:
                await end(session, job, JobState.failed, now, problem=event.problem)
        case StepCancelled():
            await end(session, job, JobState.cancelled, now, actor=job.owner_id)
        case StepFinished():
            await _finished(session, job, row, event, now)
    return True


async def cancel(session: AsyncSession, job: Job, actor: str) -> None:
    """Ends a job that nobody works on at once; asks the worker of a running one. Twice is as once.

    `job` must be locked. Raises IllegalTransition for a job that completed or failed.
    """
    if job.state is JobState.cancelled or (job.cancel_requested_at is not None and not job.is_over):
        return
    check_transition(job.state, JobState.cancelled)
    now = utcnow()
    job.cancel_requested_at = now
    if job.queue is not QueueState.active:
        await _end_unworked(session, job, now, actor)
        return
    note(session, job, now, "asked to stop", {"phase": job.phase})
    audit.record(session, actor, "job.cancel_requested", job.id)
    tell(session, job, now)
    outbox.ask_to_stop(session, job.id, job.version, now)


async def retry(session: AsyncSession, job: Job, actor: str, lost: Set[Step] = frozenset()) -> None:
    """Queues a failed or cancelled job again, from the step that is not done; what is done is kept.

    Steps that are `lost` count as not done: what they made is not there any more.

    `job` must be locked. Raises IllegalTransition for any other job, Conflict when its dataset is being worked on, or
    its dataset or voice was deleted: nothing that is completed may be missing.
    """
    if job.state not in (JobState.failed, JobState.cancelled):
        raise IllegalTransition(
            f"a job that is {job.state} cannot be retried; only failed and cancelled jobs can", state=job.status
        )
    now = utcnow()
    if job.dataset_id is not None and not await catalogue.hold(session, job.dataset_id):
        raise Conflict(f"the dataset {job.dataset!r} of this job was deleted", actions=("Start a new job.",))
    if job.voice is not None and job.job_kind in MAKES_VOICE:
        await registry.expect_again(session, slug=job.voice)
    for row in await _steps(session, job):
        if row.step in lost:
            row.manifest_path = row.manifest_sha256 = row.manifest_token = row.result = row.finished_at = None
            note(session, job, now, f"what the {row.step} step made is gone: it is done again", level="warning")
    step = await _first_to_do(session, job, None)
    assert step is not None, "a job whose steps are all done is completed"
    job.attempt += 1
    job.error = None
    job.retry_count = 0
    job.last_error = None
    job.cancel_requested_at = None
    job.started_at = None
    job.finished_at = None
    job.swept_at = None
    job.version += 1
    outbox.allow_again(session, job.id, job.version, now)
    await _queue(session, job, step, now, actor=actor)


async def send_again(session: AsyncSession, job: Job) -> None:
    """The broker has lost what it was told of the job: its command goes out anew, and whoever watches is told.

    `job` must be locked and not over. What it had done stays done; the present step is taken up where its files are.
    """
    now = utcnow()
    job.progress_sequence = 0  # the new stream counts from the beginning
    if job.step is not None:
        job.queue_state = QueueState.waiting.value
    tell(session, job, now)
    if job.cancel_requested_at is not None:
        outbox.ask_to_stop(session, job.id, job.version, now)
    if job.step is None:
        return
    await outbox.forget(session, f"{job.id}.{job.step}.{job.attempt}")
    await _send(session, job, job.step, now)
    note(session, job, now, f"{job.step} is asked for again: the broker has lost its store", level="warning")


async def made_by(session: AsyncSession, job: Job) -> dict[Step, ManifestRef]:
    """The manifests of the job's finished steps."""
    return {Step(row.step): row.manifest for row in await _steps(session, job) if row.manifest is not None}


# -- inside ------------------------------------------------------------------------------------------------------------


def _out_of_turn(job: Job, row: JobStep | None, event: StepEvent) -> str:
    """Why an event changes nothing, or an empty string."""
    if job.is_over:
        return f"the job is {job.status}"
    if row is None or job.phase != event.step.value:
        return f"the job is at {job.phase}"
    if event.attempt != row.attempt:
        return f"attempt {event.attempt} is not the present one, {row.attempt}"
    if row.manifest is not None:
        return "the step is done"
    # Token 0 is a verdict that is repeated without a lease.
    if event.token and event.token < row.token:
        return f"token {event.token} is older than {row.token}"
    return ""


async def _steps(session: AsyncSession, job: Job) -> list[JobStep]:
    return list((await session.scalars(select(JobStep).where(JobStep.job_id == job.id))).all())


async def _first_to_do(session: AsyncSession, job: Job, after: Step | None) -> Step | None:
    """The first step after `after` that is not done; None when all are."""
    done = await made_by(session, job)
    step = next_step(job.job_kind, after, job.preset)
    while step in done:
        step = next_step(job.job_kind, step, job.preset)
    return step


async def _flush_alone(session: AsyncSession, job: Job) -> None:
    """Writes the job now; the unique index of running jobs speaks as a Conflict."""
    said = f"another {job.kind} job is working on the dataset {job.dataset!r}"  # read before a rollback empties the row
    try:
        await session.flush()
    except IntegrityError as error:
        # PostgreSQL names the index, SQLite its columns.
        if not any(name in str(error.orig) for name in ("uq_jobs_running_per_dataset", "jobs.dataset_id")):
            raise
        raise Conflict(
            said,
            field="dataset_id",
            actions=("Wait until it ends, or cancel it.", "List it with status=active."),
        ) from error


async def _queue(session: AsyncSession, job: Job, step: Step, now: datetime, actor: str) -> None:
    """To `queued`, with the command for `step`."""
    job.phase = step.value
    job.queue_state = QueueState.waiting.value
    job.queued_at = now
    job.progress = progress_at(job.job_kind, step, 0.0, job.preset)
    move(session, job, JobState.queued, now, actor=actor)
    await _flush_alone(session, job)
    await _send(session, job, step, now)


async def _send(session: AsyncSession, job: Job, step: Step, now: datetime) -> None:
    """The command for `step` into the outbox, and a fresh row for its attempt."""
    row = await session.get(JobStep, (job.id, step.value))
    if row is None:
        row = JobStep(job_id=job.id, step=step.value, token=0, worker="")
        session.add(row)
    row.attempt = job.attempt
    row.failures = 0
    row.started_at = None
    command = commands.build(job, step, await made_by(session, job), row.token or 0)
    outbox.command(session, command, lane_of(job.priority), now)


def _begin(session: AsyncSession, job: Job, row: JobStep, now: datetime) -> None:
    """A worker is at it."""
    row.started_at = row.started_at or now
    job.queue_state = QueueState.active.value
    if job.state is JobState.queued:
        job.started_at = job.started_at or now
        move(session, job, JobState.running, now)
    else:
        tell(session, job, now)


async def _delayed(session: AsyncSession, job: Job, row: JobStep, event: StepDelayed, now: datetime) -> None:
    """The worker failed and will try again by itself (F-090); the job shows it (F-093)."""
    if job.state is JobState.queued:
        _begin(session, job, row, now)
    row.failures = job.retry_count = event.failures
    job.last_error = event.problem
    job.queue_state = QueueState.delayed.value
    note(
        session,
        job,
        now,
        f"{event.step} failed and will be tried again in {event.delay_seconds:g} s: {event.problem.get('detail', '')}",
        {"failures": event.failures, "problem": event.problem},
        level="warning",
    )
    if job.cancel_requested_at is not None:
        await _end_unworked(session, job, now, job.owner_id)
    else:
        tell(session, job, now)


async def _finished(session: AsyncSession, job: Job, row: JobStep, event: StepFinished, now: datetime) -> None:
    """Records what the step made; then the next command, or the end."""
    if job.state is JobState.queued:  # its StepStarted is still on the way
        _begin(session, job, row, now)
    await outcomes.keep(session, job, row, event, now)
    following = await _first_to_do(session, job, event.step)
    if following is None:
        job.progress = 100.0
        job.current_step = job.total_steps
        move(session, job, JobState.completed, now)
        return
    job.phase = following.value
    job.queue_state = QueueState.waiting.value
    job.progress = max(job.progress, progress_at(job.job_kind, following, 0.0, job.preset))
    job.eta_seconds = None
    if following not in AFTER_TRAINING:
        job.current_step, job.total_steps = 0, 0
    if job.cancel_requested_at is not None:
        await end(session, job, JobState.cancelled, now, actor=job.owner_id)
        return
    tell(session, job, now)
    await _send(session, job, following, now)


async def _end_unworked(session: AsyncSession, job: Job, now: datetime, actor: str) -> None:
    """Ends a job whose command waits: the command is taken back, and a worker that is just taking it is told."""
    row = await session.get(JobStep, (job.id, job.phase)) if job.phase else None
    await end(session, job, JobState.cancelled, now, actor=actor)
    if row is not None:
        await outbox.withdraw(session, job.id, f"{job.id}.{row.step}.{row.attempt}", job.version, now)
    outbox.ask_to_stop(session, job.id, job.version, now)
