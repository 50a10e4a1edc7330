"""`voicewright convert --job`, `jobs save` and `live`: folders as one job, and speech while it is spoken."""

from __future__ import annotations

import shlex
import time
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.client.api import Client
from libs.client.cli_jobs import jobs_app, watch
from libs.client.errors import JobEnded, NotReachable
from libs.client.live import LiveConversion
from libs.client.models import FileResult, Job
from libs.client.terminal import Exit, byte_bar, connected, err, fail, out, seconds, speaks


def check_outputs(files: list[Path], output: Path, form: str) -> None:
    """Refuses an `output` folder in which conversions in the format `form` would replace their own sources."""
    folder = output.resolve()
    for file in files:
        if file.parent.resolve() == folder and file.suffix.lower() == f".{form}":
            raise typer.BadParameter(
                f"{file} would be replaced by its conversion; choose another folder, or another --format",
                param_hint="--output",
            )


def convert_as_job(client: Client, files: list[Path], voice: str, output: Path, options: dict[str, Any]) -> None:
    """Sends `files` as one job, follows it, and saves every sound in the folder `output`."""
    check_outputs(files, output, options.get("format") or "wav")
    output.mkdir(parents=True, exist_ok=True)
    with byte_bar() as bar:
        task = bar.add_task("upload", total=sum(path.stat().st_size for path in files), note=f"{len(files)} files")
        job = client.add_conversion_job(files, voice, told=lambda count: bar.advance(task, count), **options)
    out.print(f"Job {job.id} is {job.status}: {len(files)} recordings as {job.voice}.", markup=False)
    later = f"Save its results: voicewright jobs save {job.id} -o {shlex.quote(str(output))}"
    try:
        job = watch(client, job, later)
        results = client.conversion_results(job)
        saved = _save(client, job, results, output, lambda target: not _is_among(target, files))
    except JobEnded as ended:
        _tell(client.conversion_results(ended.job))
        raise
    except NotReachable:
        err.print(later, markup=False)
        raise
    except KeyboardInterrupt:
        err.print(later, markup=False)
        raise typer.Exit(130) from None
    _conclude(results, saved, output)


@jobs_app.command("save")
@speaks
def save_results(
    job_id: str,
    output: Annotated[Path, typer.Option("--output", "-o", file_okay=False, help="The folder for the sounds")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other files of the same names")] = False,
) -> None:
    """Save the sounds of a conversion job that is over; what is there already is not fetched again."""
    with connected() as client:
        job = client.job(job_id)
        if job.kind != "conversion":
            fail(f"Job {job.id} is a {job.kind} job; only conversions have sounds to save.", Exit.refused)
        if not job.is_over:
            fail(f"Job {job.id} is {job.status}. Watch it: voicewright jobs follow {job.id}", Exit.refused)
        results = client.conversion_results(job)
        if job.status != "completed":
            _tell(results)
            raise JobEnded(job)
        output.mkdir(parents=True, exist_ok=True)
        saved = _save(client, job, results, output, lambda target: overwrite or not target.exists(), keep_fitting=True)
    _conclude(results, saved, output)


def _save(
    client: Client,
    job: Job,
    results: list[FileResult],
    output: Path,
    may_write: Callable[[Path], bool],
    *,
    keep_fitting: bool = False,
) -> int:
    """Saves the converted sounds; returns how many are in `output`.

    A file that may not be written stays as it is, and is named. With `keep_fitting`, one of the right size counts as
    the sound and is not fetched again.
    """
    there = 0
    for result in results:
        if result.state != "converted" or not result.file:
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


def _is_among(target: Path, files: list[Path]) -> bool:
    """Whether `target` is one of `files`, under whatever name."""
    return target.exists() and any(file.exists() and target.samefile(file) for file in files)


def _conclude(results: list[FileResult], there: int, output: Path) -> None:
    """Says what was saved; ends with a code of its own when not everything was."""
    out.print(f"{there} of {len(results)} recordings are in {output}.", markup=False)
    if _tell(results) or there < len(results):
        raise typer.Exit(int(Exit.partly))


def _tell(results: list[FileResult]) -> int:
    """Says why recordings failed; returns how many."""
    failed = [(result.name, result.problem) for result in results if result.problem is not None]
    for name, problem in failed:
        err.print(f"{name}: {problem.sentences()}", style="yellow", markup=False)
    if expired := sum(result.state == "expired" for result in results):
        err.print(f"{expired} recordings are not kept any more: convert them again.", style="yellow", markup=False)
    return len(failed)


@speaks
def live(
    voice: Annotated[str, typer.Option(help="Name, slug or id of the voice")],
    input: Annotated[Path, typer.Option("--input", exists=True, dir_okay=False, help="A WAV of 16 bits")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep what comes back, as WAV")] = None,
    pitch_shift: Annotated[float, typer.Option(min=-24, max=24, help="Semitones")] = 0.0,
    block: Annotated[float, typer.Option(min=0.02, max=1.5, help="Seconds per block; less is faster to hear")] = 0.25,
    f0_method: Annotated[str, typer.Option(help="auto, rmvpe, swift, …")] = "auto",
) -> None:
    """Try a live conversion: a file is streamed as fast as it would be spoken, and the delays are measured."""
    rate, frames, pcm = _read(input)
    with (
        connected() as client,
        LiveConversion(
            client, voice, rate, block_seconds=block, pitch_shift=pitch_shift, f0_method=f0_method
        ) as session,
    ):
        ready = session.ready
        out.print(
            f"{voice}: blocks of {1000 * ready['block_seconds']:.0f} ms at {rate} Hz, "
            f"{1000 * ready['latency_seconds']:.0f} ms of latency before computing.",
            markup=False,
        )
        heard = bytearray()
        step = ready["block_samples"] * 2
        begun = time.monotonic()
        for number, start in enumerate(range(0, len(pcm), step)):
            session.send(pcm[start : start + step])
            for piece in session.received():
                heard += piece
            time.sleep(max(0.0, begun + (number + 1) * ready["block_seconds"] - time.monotonic()))
        session.end()
        for piece in session.received(wait=True):
            heard += piece
        stats = session.stats
    if output is not None:
        _write(output, bytes(heard), ready["output_rate"])
    times = stats.get("block_ms", {})
    out.print(
        f"{seconds(frames / rate)} of speech: {stats.get('blocks')} blocks, {times.get('mean')} ms each "
        f"(p95 {times.get('p95')} ms), {stats.get('dropped_blocks')} dropped.",
        markup=False,
    )


def _read(path: Path) -> tuple[int, int, bytes]:
    """Rate, frames and mono 16-bit PCM of a WAV."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != 2:
                raise typer.BadParameter("a WAV of 16 bits is needed", param_hint="--input")
            channels, frames = file.getnchannels(), file.getnframes()
            data = file.readframes(frames)
            rate = file.getframerate()
    except wave.Error as error:
        raise typer.BadParameter(f"{path} is no WAV: {error}", param_hint="--input") from None
    if channels > 1:  # the first channel: this is for trying
        data = b"".join(data[start : start + 2] for start in range(0, len(data), 2 * channels))
    return rate, frames, data


def _write(path: Path, pcm: bytes, rate: int) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm)
