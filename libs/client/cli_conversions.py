"""`voicewright convert --job` and `live`: folders as one job, and speech while it is spoken."""

from __future__ import annotations

import time
import wave
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.client.api import Client
from libs.client.cli_jobs import watch
from libs.client.errors import JobEnded
from libs.client.live import LiveConversion
from libs.client.models import Job
from libs.client.terminal import Exit, byte_bar, connected, err, out, seconds, speaks


def convert_as_job(client: Client, files: list[Path], voice: str, output: Path, options: dict[str, Any]) -> None:
    """Sends `files` as one job, follows it, and saves every sound in the folder `output`."""
    output.mkdir(parents=True, exist_ok=True)
    with byte_bar() as bar:
        task = bar.add_task("upload", total=sum(path.stat().st_size for path in files), note=f"{len(files)} files")
        job = client.add_conversion_job(files, voice, told=lambda count: bar.advance(task, count), **options)
    out.print(f"Job {job.id} is {job.status}: {len(files)} recordings as {job.voice}.", markup=False)
    try:
        job = watch(client, job)
    except JobEnded as ended:
        _tell(client, ended.job)
        raise
    saved = 0
    for result in client.conversion_results(job):
        if result.state == "converted" and result.file:
            client.save_conversion(job, result, output / Path(result.file).name)
            saved += 1
    out.print(f"{saved} of {len(client.conversion_results(job))} recordings are in {output}.", markup=False)
    if _tell(client, job):
        raise typer.Exit(int(Exit.partly))


def _tell(client: Client, job: Job) -> int:
    """Says why recordings failed; returns how many."""
    failed = [result for result in client.conversion_results(job) if result.problem is not None]
    for result in failed:
        assert result.problem is not None
        err.print(f"{result.name}: {result.problem.sentences()}", style="yellow", markup=False)
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
