"""How does the command line speak? Tables, progress bars, problems as sentences, exit codes that scripts can use."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from enum import IntEnum
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from libs.client import credentials
from libs.client.api import Client
from libs.client.errors import ApiProblem, ClientError, JobEnded, NotReachable, SignInNeeded, UploadBroken
from libs.client.models import FeedEvent, Job, Tokens

P = ParamSpec("P")
R = TypeVar("R")

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON")]

# Where nobody looks, lines are as long as they are: what reads them wants a row in a line.
out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False, soft_wrap=True)


class Exit(IntEnum):
    """Exit codes of `voicewright`. 2 is a wrong use of the command line, 130 Ctrl-C."""

    ok = 0
    refused = 1  # the platform answered with a problem
    sign_in = 3  # not signed in, or not allowed
    unreachable = 4
    job_failed = 5
    job_cancelled = 6
    partly = 7  # some of the files were not accepted


def speaks(command: Callable[P, R]) -> Callable[P, R]:
    """Turns errors of the client into one sentence on stderr and an exit code."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except ClientError as error:
            fail(f"{error}{_hint(error)}", _exit_of(error))
        raise AssertionError("fail() does not return")

    return wrapped


def _hint(error: ClientError) -> str:
    match error:
        case SignInNeeded(status=401):
            return " Use `voicewright login`."
        case ApiProblem(problem=problem) if problem.request_id and not isinstance(error, SignInNeeded):
            return f" (request {problem.request_id})"
        case UploadBroken(cause=cause):
            return _hint(cause)
    return ""


def _exit_of(error: ClientError) -> Exit:
    match error:
        case SignInNeeded():
            return Exit.sign_in
        case NotReachable():
            return Exit.unreachable
        case JobEnded(job=job):
            return Exit.job_cancelled if job.status == "cancelled" else Exit.job_failed
        case UploadBroken(cause=cause):
            return _exit_of(cause)
    return Exit.refused


def fail(text: str, code: Exit) -> None:
    err.print(text, style="red", markup=False)
    raise typer.Exit(int(code))


@contextmanager
def connected(url: str | None = None) -> Iterator[Client]:
    """A client with the stored or given credentials; renewed tokens are stored again."""
    kept = credentials.load(url)

    def store(tokens: Tokens) -> None:
        if kept.email:  # a token from the environment is not ours to store
            refresh = tokens.refresh_token or kept.refresh_token
            credentials.save(kept.model_copy(update={"access_token": tokens.access_token, "refresh_token": refresh}))

    with Client(kept.url, kept.access_token, kept.refresh_token, on_tokens=store) as client:
        yield client


def show_json(value: Any) -> None:
    """Models as JSON on stdout, for programs."""
    out.print_json(
        data=[v.model_dump(mode="json") for v in value] if isinstance(value, list) else value.model_dump(mode="json")
    )


def table(*columns: str) -> Table:
    """An empty table; a column named `id` is never broken, so that it can be copied."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column == "id")
    return made


def show_facts(facts: Mapping[str, object]) -> None:
    """One thing's facts, a line each; what is None is a dash. Nothing in them is read as markup."""
    rows = table("", "")
    for label, value in facts.items():
        rows.add_row(label, Text("–" if value is None else str(value)))
    out.print(rows)


def when(moment: datetime | None) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else "–"


def seconds(value: float | None) -> str:
    """A duration for people: `4 min 05 s`."""
    if value is None:
        return "–"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def byte_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        console=err,
        transient=True,
        disable=not sys.stderr.isatty(),
    )


class JobBar:
    """A job's progress: a bar on a terminal, a line at each change elsewhere."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._said = ""
        self._bar = Progress(
            TextColumn("{task.description:10}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=err,
            disable=not err.is_terminal,
        )
        self._task = self._bar.add_task(job.phase or job.status, total=100, note="")
        self._bar.update(self._task, completed=job.progress)

    def __enter__(self) -> JobBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def told(self, event: FeedEvent) -> None:
        """Shows one event of the feed."""
        data = event.data.get("job", event.data)
        phase = data.get("step") or data.get("phase") or data.get("status") or ""
        progress = data.get("progress")
        note = describe(data)
        self._bar.update(
            self._task, description=phase, note=note, **({} if progress is None else {"completed": progress})
        )
        if not err.is_terminal:
            percent = "" if progress is None else f"{int(progress) // 5 * 5:3d} %"
            line = f"{phase} {percent}"
            if line != self._said:
                self._said = line
                err.print(f"{line}  {note}".rstrip(), markup=False)


def describe(data: dict[str, Any]) -> str:
    """Step, loss, speed and time left of one event, as far as it has them."""
    done = data.get("done", data.get("current_step"))
    total = data.get("total", data.get("total_steps"))
    loss = data.get("loss", data.get("current_loss"))
    parts = [f"{done}/{total}" if done and total else "", f"loss {loss:.4g}" if loss is not None else ""]
    if speed := data.get("steps_per_second"):
        parts.append(f"{speed:.2f} steps/s")
    if (left := data.get("eta_seconds")) is not None:
        parts.append(f"{seconds(left)} left")
    if data.get("queue_state") in ("waiting", "delayed"):
        parts.append(str(data["queue_state"]))
    if data.get("cancel_requested"):
        parts.append("cancelling")
    return " · ".join(part for part in [*parts, str(data.get("message") or "")] if part)
