"""What becomes of the sounds of a job on this machine? Followed, saved, told; `voicewright jobs save` does it again."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from libs.client.api import Client
from libs.client.cli_jobs import jobs_app, watch
from libs.client.errors import JobEnded, NotReachable
from libs.client.models import FileResult, Job
from libs.client.terminal import Exit, connected, err, fail, out, speaks

INPUTS = {"conversion": "recordings", "speech": "texts"}
"""Kinds of jobs that make sounds, and of what."""


def follow_and_save(client: Client, job: Job, output: Path, may_write: Callable[[Path], bool]) -> None:
    """Follows a job and saves every sound in the folder `output`, which is there.

    Ctrl-C and a broken connection end the following; the command that saves the results is named then.
    """
    later = f"Save its results: voicewright jobs save {job.id} -o {shlex.quote(str(output))}"
    try:
        job = watch(client, job, later)
        results = client.conversion_results(job)
        saved = _save(client, job, results, output, may_write)
    except JobEnded as ended:
        _tell(client.conversion_results(ended.job))
        raise
    except NotReachable:
        err.print(later, markup=False)
        raise
    except KeyboardInterrupt:
        err.print(later, markup=False)
        raise typer.Exit(130) from None
    _conclude(job, results, saved, output)


@jobs_app.command("save")
@speaks
def save_results(
    job_id: str,
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="The folder for the sounds")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other files of the same names")] = False,
) -> None:
    """Save the sounds of a conversion or speech job that is over; what is there already is not fetched again."""
    with connected() as client:
        job = client.job(job_id)
        if job.kind not in INPUTS:
            fail(f"Job {job.id} is a {job.kind} job; only conversions and speech have sounds to save.", Exit.refused)
        if not job.is_over:
            fail(f"Job {job.id} is {job.status}. Watch it: voicewright jobs follow {job.id}", Exit.refused)
        results = client.conversion_results(job)
        if job.status != "completed":
            _tell(results)
            raise JobEnded(job)
        output.mkdir(parents=True, exist_ok=True)
        saved = _save(client, job, results, output, lambda target: overwrite or not target.exists(), keep_fitting=True)
    _conclude(job, results, saved, output)


def _save(
    client: Client,
    job: Job,
    results: list[FileResult],
    output: Path,
    may_write: Callable[[Path], bool],
    *,
    keep_fitting: bool = False,
) -> int:
    """Saves the sounds that were made; returns how many are in `output`.

    A file that may not be written stays as it is, and is named. With `keep_fitting`, one of the right size counts as
    the sound and is not fetched again.
    """
    there = 0
    for result in results:
        if result.state not in ("converted", "said") or not result.file:
            continue
        target = output / Path(result.file).name
        if keep_fitting and target.is_file() and target.stat().st_size == result.size_bytes:
            there += 1
        elif may_write(target):
            client.save_conversion(job, result, target)
            there += 1
        else:
            err.print(f"{target} is another file and stays as it is.", style="yellow", markup=False)
    return there


def _conclude(job: Job, results: list[FileResult], there: int, output: Path) -> None:
    """Says what was saved; ends with a code of its own when not everything was."""
    out.print(f"{there} of {len(results)} {INPUTS[job.kind]} are in {output}.", markup=False)
    if _tell(results) or there < len(results):
        raise typer.Exit(int(Exit.partly))


def _tell(results: list[FileResult]) -> int:
    """Says why some failed; returns how many."""
    failed = [(result.name, result.problem) for result in results if result.problem is not None]
    for name, problem in failed:
        err.print(f"{name}: {problem.sentences()}", style="yellow", markup=False)
    if expired := sum(result.state == "expired" for result in results):
        err.print(f"{expired} sounds are not kept any more: start the job again.", style="yellow", markup=False)
    return len(failed)
