"""`voicewright train`, `preprocess` and `jobs`: start work, watch it, end it."""

from __future__ import annotations

import json as plain_json
from typing import Annotated, Any

import typer

from libs.client.api import Client
from libs.client.errors import JobEnded
from libs.client.models import Job, Kind
from libs.client.terminal import (
    JobBar,
    JsonOption,
    connected,
    describe,
    err,
    out,
    seconds,
    show_facts,
    show_json,
    speaks,
    table,
    when,
)

jobs_app = typer.Typer(help="Training, preparation, conversion and speech jobs.", no_args_is_help=True)

DatasetOption = Annotated[str, typer.Option("--dataset", help="Name, slug or id")]
FollowOption = Annotated[bool, typer.Option("--follow", "-f", help="Show the progress until the job is over")]


def dataset_key(client: Client, name: str) -> str:
    """The id of the dataset with this name; the name itself when there is none, so that the platform answers."""
    found = client.find_dataset(name)
    return found.id if found else name


def watch(client: Client, job: Job, then: str = "") -> Job:
    """Follows a job with a bar. Ctrl-C ends the watching and not the job; `then` is what can be done afterwards."""
    try:
        with JobBar(job) as bar:
            done = client.wait(job, told=bar.told)
    except KeyboardInterrupt:
        err.print(
            f"Job {job.id} goes on. Watch it again: voicewright jobs follow {job.id}. {then}".strip(), markup=False
        )
        raise typer.Exit(130) from None
    took = (done.finished_at - done.started_at).total_seconds() if done.finished_at and done.started_at else None
    out.print(f"Job {done.id} completed in {seconds(took)}.", markup=False)
    return done


TRAIN_OPTIONS = (
    "epochs",
    "batch_size",
    "learning_rate",
    "seed",
    "f0_method",
    "train_seconds",
    "preset",
    "provider",
    "language",
    "name",
)


def named_value(text: str) -> tuple[str, Any]:
    """`ema_decay=0.999` as name and value: what is JSON is read as such, the rest is text."""
    name, found, value = text.partition("=")
    if not found or not name.isidentifier() or name in TRAIN_OPTIONS:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE, or it has an option of its own", param_hint="--option")
    try:
        return name, plain_json.loads(value)
    except ValueError:
        return name, value


@speaks
def train(
    dataset: DatasetOption,
    name: Annotated[str | None, typer.Option(help="Display name of the voice; default: the dataset's")] = None,
    provider: Annotated[str | None, typer.Option(help="rvc, xtts, google, openai; default: rvc")] = None,
    language: Annotated[str | None, typer.Option(help="Of the clips, for a voice that speaks text")] = None,
    preset: Annotated[str | None, typer.Option(help="lite, rvc-v2-40k, …; default: what the machine can train")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.05, help="Train for about this long")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, max=1000)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, max=64)] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    f0_method: Annotated[str | None, typer.Option(help="auto, rmvpe, swift, harvest, …")] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Another option of the API, as ema_decay=0.999; repeatable"),
    ] = None,
    priority: Annotated[int, typer.Option(min=0, max=100, help="80 goes before 50")] = 50,
    follow: FollowOption = False,
) -> None:
    """Train a voice from a dataset."""
    others = dict(named_value(text) for text in option or ())
    with connected() as client:
        job = client.add_training_job(
            dataset_key(client, dataset),
            name=name,
            provider=provider,
            preset=preset,
            priority=priority,
            language=language,
            train_seconds=60 * minutes if minutes else None,
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            seed=seed,
            f0_method=f0_method,
            **others,
        )
        for warning in job.warnings:
            err.print(warning, style="yellow", markup=False)
        out.print(f"Job {job.id} is {job.status}: {job.preset} voice from {job.dataset}.", markup=False)
        if follow:
            done = watch(client, job)
            use = "convert IN.wav" if language is None else 'say "Hello."'
            out.print(f"Voice: {done.voice}. Try: voicewright {use} --voice {done.voice} -o OUT.wav", markup=False)


@speaks
def preprocess(
    dataset: DatasetOption,
    f0_method: Annotated[str, typer.Option(help="auto, rmvpe, swift, harvest, …")] = "auto",
    follow: FollowOption = False,
) -> None:
    """Prepare a dataset; training does it by itself when it is needed."""
    with connected() as client:
        job = client.add_preprocess_job(dataset_key(client, dataset), f0_method=f0_method)
        out.print(f"Job {job.id} is {job.status}.", markup=False)
        if follow:
            watch(client, job)


@jobs_app.command("list")
@speaks
def list_jobs(
    active: Annotated[bool, typer.Option("--active", help="Only jobs that are not over")] = False,
    kind: Annotated[Kind | None, typer.Option(help="Jobs of this kind alone")] = None,
    limit: Annotated[int, typer.Option(min=1)] = 20,
    json: JsonOption = False,
) -> None:
    """Your jobs, newest first."""
    with connected() as client:
        found = client.jobs(kind=kind, status="active" if active else None, limit=limit)
    if json:
        show_json(found)
        return
    rows = table("id", "kind", "name", "status", "phase", "progress", "created")
    for job in found:
        progress = f"{job.progress:.0f} %"
        rows.add_row(job.id, job.kind, job.name, job.status, job.phase or "–", progress, when(job.created_at))
    out.print(rows)


@jobs_app.command("show")
@speaks
def show_job(job_id: str, json: JsonOption = False) -> None:
    """One job as it is now."""
    with connected() as client:
        job = client.job(job_id)
    if json:
        show_json(job)
        return
    show_facts(
        {
            "job": f"{job.id} ({job.kind})",
            "name": job.name,
            "status": " · ".join(part for part in (job.status, job.queue_state, job.phase) if part),
            "progress": f"{job.progress:.1f} %  {describe(job.model_dump())}",
            "dataset": job.dataset,
            "voice": job.voice,
            "preset": job.preset,
            "created": when(job.created_at),
            "started": when(job.started_at),
            "finished": when(job.finished_at),
            "error": job.error.sentences() if job.error else None,
        }
    )


@jobs_app.command("follow")
@speaks
def follow_job(job_id: str) -> None:
    """Watch a job until it is over."""
    with connected() as client:
        job = client.job(job_id)
        if job.is_over:
            if job.status != "completed":
                raise JobEnded(job)
            out.print(f"Job {job.id} is completed.", markup=False)
            return
        watch(client, job)


@jobs_app.command("cancel")
@speaks
def cancel_job(job_id: str) -> None:
    """End a job. A running one stops at its next step and keeps its checkpoint."""
    with connected() as client:
        job = client.cancel(client.job(job_id))
    said = "is cancelled" if job.status == "cancelled" else "will be cancelled as soon as its worker has stopped"
    out.print(f"Job {job.id} {said}.", markup=False)


@jobs_app.command("retry")
@speaks
def retry_job(job_id: str, follow: FollowOption = False) -> None:
    """Take a failed or cancelled job up again, from its last checkpoint."""
    with connected() as client:
        job = client.retry(client.job(job_id))
        out.print(f"Job {job.id} is {job.status} again.", markup=False)
        if follow:
            watch(client, job)


@jobs_app.command("logs")
@speaks
def job_logs(job_id: str, limit: Annotated[int, typer.Option(min=1)] = 500, json: JsonOption = False) -> None:
    """What happened to a job, oldest first."""
    with connected() as client:
        lines = list(client.logs(client.job(job_id), limit=limit))
    if json:
        show_json(lines)
        return
    for line in lines:
        details = " ".join(
            f"{name}={value}" for name, value in line.metadata.items() if not isinstance(value, dict | list)
        )
        out.print(f"{when(line.timestamp)} {line.level:7} {line.message} {details}".rstrip(), markup=False)
