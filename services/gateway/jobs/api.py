"""What can be asked about jobs? The routes of training and preprocessing, and of what a dataset still needs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from libs.common.errors import PlatformError
from libs.common.events import InputFile
from libs.common.jobs import JobKind, Step
from libs.common.providers import provider_of
from services.gateway import workers
from services.gateway.accounts.current import Creator, CurrentUser
from services.gateway.datasets.schemas import SpeakerOut
from services.gateway.datasets.tables import Dataset
from services.gateway.etags import IfNoneMatch, etag, is_unchanged
from services.gateway.idempotency import reserved_id
from services.gateway.jobs import (
    budget,
    feed,
    history,
    lifecycle,
    presets,
    reading,
    reopening,
    results,
    speech,
    starting,
)
from services.gateway.jobs.schemas import (
    Artifacts,
    CancelledJob,
    JobOut,
    JobPage,
    LogLine,
    LogPage,
    PreprocessRequest,
    Stats,
    TrainingRequest,
    Validation,
)
from services.gateway.jobs.tables import Job, JobStep
from services.gateway.paging import Page
from services.gateway.parts import Parts, SharedParts
from services.gateway.routing import PREFIX, creates, problems, router
from services.gateway.text import Text

_KEY = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"

training_router = router("/training", "training")
preprocess_router = router("/preprocess", "preprocess")
model_job_router = router("/model", "models")
dataset_router = router("/datasets", "datasets")


def _out(parts: Parts, job: Job) -> JobOut:
    return JobOut.of(job, len(parts.settings.retry_delays))


def accepted(response: Response, parts: Parts, job: Job) -> JobOut:
    """The answer to a request that queued a job."""
    response.headers["Location"] = f"{PREFIX}/{job.job_kind.address}/jobs/{job.id}"
    response.headers["ETag"] = etag(job.id, job.version)
    return _out(parts, job)


@training_router.post(
    "/jobs",
    status_code=202,
    operation_id="start_training",
    summary="Train a voice",
    dependencies=[creates],
    responses=problems(403, 404, 409),
)
async def start_training(
    body: TrainingRequest, request: Request, response: Response, caller: Creator, parts: SharedParts
) -> JobOut:
    """Queues a training job: validate, preprocess, train, index, evaluate, publish.

    Without a `preset` the default is what the trainers' device can train, and the answer says which. The `name` of a
    voice of yours makes a new version of it. One training job per dataset runs at a time.
    """
    alive = await workers.announced(parts.connected)
    job_id = reserved_id(request, "job")
    price = parts.settings.gpu_hour_price
    async with parts.database.write() as session:
        job = await starting.start_training(
            session, caller, body, job_id=job_id, alive=alive, price=price, limits=budget.limits_of(parts.settings)
        )
    return accepted(response, parts, job)


@preprocess_router.post(
    "/jobs",
    status_code=202,
    operation_id="start_preprocessing",
    summary="Prepare a dataset",
    dependencies=[creates],
    responses=problems(403, 404, 409),
)
async def start_preprocessing(
    body: PreprocessRequest, request: Request, response: Response, caller: Creator, parts: SharedParts
) -> JobOut:
    """Queues a job that makes the five folders of a dataset; a training job does this by itself as well."""
    alive = await workers.announced(parts.connected)
    job_id = reserved_id(request, "job")
    async with parts.database.write() as session:
        job = await starting.start_preprocessing(session, caller, body, job_id=job_id, alive=alive)
    return accepted(response, parts, job)


@training_router.get("/stats", operation_id="training_stats", summary="How many jobs are where")
async def training_stats(caller: CurrentUser, parts: SharedParts) -> Stats:
    """Counts of your training jobs, of everybody's for an administrator."""
    async with parts.database.read() as session:
        return await reading.statistics(session, caller, JobKind.training)


def add_job_routes(routes: APIRouter, kind: JobKind, *, may_retry: bool = True) -> None:
    """What can be asked about a job of any kind; `may_retry` when it can be taken up again after its end."""
    name = kind.value
    if may_retry:
        _add_retry(routes, kind)

    @routes.get("/jobs", operation_id=f"list_{name}_jobs", summary="Your jobs, newest first", responses=problems(403))
    async def list_jobs(
        caller: CurrentUser,
        parts: SharedParts,
        paging: Page,
        status: Annotated[reading.Status | None, Query(description="`active`: pending, queued or running")] = None,
        q: Annotated[Text | None, Query(max_length=200, description="Part of name, dataset, voice or id")] = None,
        user_id: Annotated[
            str | None, Query(pattern=_KEY, description="Of another account; administrators only")
        ] = None,
        dataset_id: Annotated[str | None, Query(pattern=_KEY, description="Id or slug")] = None,
    ) -> JobPage:
        async with parts.database.read() as session:
            found = await reading.listing(
                session,
                caller,
                kind,
                status=status,
                q=q,
                user_id=user_id,
                dataset_id=dataset_id,
                before=paging.after,
                count=paging.asked,
            )
        items, following = paging.cut(found)
        return JobPage(items=[_out(parts, job) for job in items], next_cursor=following)

    @routes.get(
        "/jobs/{job_id}",
        operation_id=f"get_{name}_job",
        summary="One job",
        responses=problems(404) | {304: {"description": "It has not changed"}},
        response_model=JobOut,
    )
    async def get_job(
        job_id: str, caller: CurrentUser, parts: SharedParts, response: Response, if_none_match: IfNoneMatch = None
    ) -> JobOut | Response:
        job = await reading.look_up(parts.database, caller, kind, job_id)
        tag = etag(job.id, job.version)
        if is_unchanged(if_none_match, tag):
            return Response(status_code=304, headers={"ETag": tag})
        response.headers["ETag"] = tag
        response.headers["Cache-Control"] = "no-cache"
        return _out(parts, job)

    @routes.post(
        "/jobs/{job_id}/cancel",
        operation_id=f"cancel_{name}_job",
        summary="End a job",
        responses=problems(403, 404, 409),
    )
    async def cancel_job(job_id: str, caller: Creator, parts: SharedParts) -> CancelledJob:
        """Ends a waiting job at once. A running one shows `cancel_requested_at` until its worker has stopped."""
        async with parts.database.write() as session:
            job = await reading.find(session, caller, kind, job_id, lock=True)
            await lifecycle.cancel(session, job, caller.id)
        return CancelledJob.model_validate(_out(parts, job).model_dump() | {"success": True})

    @routes.get(
        "/jobs/{job_id}/logs",
        operation_id=f"{name}_job_logs",
        summary="What happened to a job",
        responses=problems(404),
    )
    async def job_logs(job_id: str, caller: CurrentUser, parts: SharedParts, paging: Page) -> LogPage:
        """Transitions, steps and the workers' messages, oldest first; a `next_cursor` leads to what came later."""
        async with parts.database.read() as session:
            job = await reading.find(session, caller, kind, job_id)
            rows = await history.page(session, job.id, int(paging.after or 0), paging.asked)
        items, following = paging.cut(rows)
        return LogPage(items=[LogLine.of(row) for row in items], next_cursor=following)

    @routes.get(
        "/jobs/{job_id}/events",
        operation_id=f"{name}_job_events",
        summary="A job as it happens (server-sent events)",
        response_class=StreamingResponse,
        responses=problems(404)
        | {
            200: {
                "description": "`snapshot`, then `progress` and `state` until the terminal state",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            204: {"description": "You have seen everything: there will be no more"},
        },
    )
    async def job_events(
        job_id: str,
        request: Request,
        caller: CurrentUser,
        parts: SharedParts,
        last_event_id: Annotated[
            str | None, Header(description="The id of the last event that you saw: the feed goes on after it")
        ] = None,
    ) -> Response:
        """Ids are positions in one stream. Without `Last-Event-ID`, or when it is too old, a snapshot comes first."""
        async with parts.database.read() as session:
            job = await reading.find(session, caller, kind, job_id)
        retries = len(parts.settings.retry_delays)
        seen = _event_id(last_event_id)
        start = await feed.begin(parts.database, parts.bus, job.id, seen, retries)
        if start is None:
            return Response(status_code=204)
        closing = request.app.state.closing
        frames = feed.frames(parts.database, parts.bus, start, parts.settings.heartbeat_comment, closing)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return StreamingResponse(frames, media_type="text/event-stream", headers=headers)


def _add_retry(routes: APIRouter, kind: JobKind) -> None:
    @routes.post(
        "/jobs/{job_id}/retry",
        status_code=202,
        operation_id=f"retry_{kind.value}_job",
        summary="Take a failed or cancelled job up again",
        responses=problems(403, 404, 409),
    )
    async def retry_job(job_id: str, response: Response, caller: Creator, parts: SharedParts) -> JobOut:
        """Goes on at the step that was not finished; a training run goes on from its last checkpoint.

        A finished step whose results are gone or damaged is done again.
        """
        async with parts.database.read() as session:
            job = await reading.find(session, caller, kind, job_id)
            made = await lifecycle.made_by(session, job)
        lost = await asyncio.to_thread(reopening.lost, parts.paths, made, job.error)
        async with parts.database.write() as session:
            job = await reading.find(session, caller, kind, job_id, lock=True)
            await lifecycle.retry(session, job, caller.id, lost)
        return accepted(response, parts, job)


def _event_id(header: str | None) -> int | None:
    """A client's last id; one that no feed gave out counts as none."""
    return int(header) if header and header.isascii() and header.isdigit() and len(header) < 19 else None


add_job_routes(training_router, JobKind.training)
add_job_routes(preprocess_router, JobKind.preprocess)
add_job_routes(model_job_router, JobKind.model)


@training_router.get(
    "/jobs/{job_id}/metrics",
    operation_id="training_job_metrics",
    summary="The losses of a training run",
    response_model=None,
    responses=problems(404)
    | {
        200: {
            "content": {"application/json": {"schema": {"type": "object"}}, "text/csv": {"schema": {"type": "string"}}}
        }
    },
)
async def job_metrics(
    job_id: str,
    caller: CurrentUser,
    parts: SharedParts,
    format: Annotated[Literal["json", "csv"], Query(description="JSON, or a table")] = "json",
) -> dict[str, object] | Response:
    """Every line of the run's metrics, while it runs and afterwards."""
    async with parts.database.read() as session:
        job = await reading.find(session, caller, JobKind.training, job_id)
        row = await session.get(JobStep, (job.id, Step.train.value))
    trained, token = (row.manifest, row.token) if row is not None else (None, 0)
    rows = await asyncio.to_thread(results.metrics, parts.paths, job.experiment, job.id, trained, token)
    if format == "csv":
        named = {"Content-Disposition": f'attachment; filename="{job.id}.csv"'}
        return PlainTextResponse(results.as_csv(rows), media_type="text/csv", headers=named)
    return {"job_id": job.id, "items": rows}


def _content(inputs: Sequence[InputFile]) -> set[tuple[str, int]]:
    """What a preparation depends on: each recording's content, and whose it is."""
    return {(item.sha256, item.speaker) for item in inputs}


async def _artifacts(parts: Parts, dataset: Dataset, inputs: Sequence[InputFile]) -> Artifacts:
    async with parts.database.read() as session:
        found = await reading.last_prepared(session, dataset)
    if found is None:
        folders, missing = await asyncio.to_thread(results.folders, parts.paths, None)
        return Artifacts(dataset_id=dataset.id, dataset=dataset.slug, prepared=False, folders=folders, missing=missing)
    job, step = found
    folders, missing = await asyncio.to_thread(results.folders, parts.paths, step.manifest)
    facts = dict(step.result or {})
    return Artifacts(
        dataset_id=dataset.id,
        dataset=dataset.slug,
        prepared=not missing,
        is_current=_content(job.pinned) == _content(inputs),
        job_id=job.id,
        prepared_at=step.finished_at,
        folders=folders,
        missing=missing,
        pieces=facts.get("pieces"),
        seconds=facts.get("seconds"),
        facts=facts,
    )


@dataset_router.get(
    "/{dataset_id}/artifacts",
    operation_id="dataset_artifacts",
    summary="What preprocessing made of a dataset",
    responses=problems(404),
)
async def dataset_artifacts(dataset_id: str, caller: CurrentUser, parts: SharedParts) -> Artifacts:
    """The five folders with their counts, and which of them are missing."""
    async with parts.database.read() as session:
        dataset = await starting.find_dataset(session, caller, None, dataset_id)
        held = await starting.recordings_of(session, dataset)
    return await _artifacts(parts, dataset, held.inputs)


@dataset_router.post(
    "/{dataset_id}/validate",
    operation_id="validate_dataset",
    summary="Can this dataset be trained on?",
    responses=problems(404),
)
async def validate_dataset(
    dataset_id: str,
    caller: CurrentUser,
    parts: SharedParts,
    preset: Annotated[Text | None, Query(max_length=32, description="For a training with this preset")] = None,
    language: Annotated[Text | None, Query(max_length=20, description="Of the recordings, for speech")] = None,
) -> Validation:
    """Says what stands in the way, without starting anything."""
    alive = await workers.announced(parts.connected)
    chosen = presets.preset(preset or presets.default_preset(workers.devices(alive)))
    provider = provider_of(chosen.name)
    found: list[PlatformError] = []
    async with parts.database.read() as session:
        dataset = await starting.find_dataset(session, caller, None, dataset_id)
        held = await starting.recordings_of(session, dataset)
        clips = await speech.clips_of(session, dataset)
    try:
        starting.check_speakers(chosen, dataset, held.shares)
        starting.check_speech(dataset, held.inputs, held.seconds, chosen.min_seconds, held.shares)
        speech.check_transcripts(provider, clips)
        if chosen.needs_hubert:
            workers.check_content(alive, chosen.name)
    except PlatformError as error:
        found.append(error)
    can_train = not found
    artifacts = await _artifacts(parts, dataset, held.inputs)
    if provider.speaks:  # nothing is prepared for it: the clips are what counts
        found += speech.doubts(provider, clips, language)
    elif not artifacts.prepared:
        found.append(starting.not_prepared(dataset, artifacts.missing))
    elif not artifacts.is_current:
        found.append(starting.outdated(dataset))
    return Validation(
        valid=not found,
        can_train=can_train,
        dataset_id=dataset.id,
        dataset=dataset.slug,
        exp_name=dataset.slug,
        recordings=len(held.inputs),
        seconds=round(held.seconds, 3),
        speakers=SpeakerOut.all_of(held.shares),
        needed_seconds=chosen.min_seconds,
        problems=[error.problem() for error in found],
        artifacts=artifacts,
    )
