"""`voicewright convert --job` and `live`: folders as one job, and speech while it is spoken."""

from __future__ import annotations

import time
import wave
from pathlib import Path
from typing import Annotated, Any

import typer

from libs.client.api import Client
from libs.client.cli_results import follow_and_save
from libs.client.live import LiveConversion
from libs.client.terminal import byte_bar, connected, out, seconds, speaks


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
    follow_and_save(client, job, output, lambda target: not _is_among(target, files))


def _is_among(target: Path, files: list[Path]) -> bool:
    """Whether `target` is one of `files`, under whatever name."""
    return target.exists() and any(file.exists() and target.samefile(file) for file in files)


@speaks
def live(
    voice: Annotated[str, typer.Option(help="Name, slug or id of the voice")],
    input: Annotated[Path, typer.Option("--input", exists=True, dir_okay=False, help="A WAV of 16 bits")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Keep what comes back, as WAV")] = None,
    pitch_shift: Annotated[float, typer.Option(min=-24, max=24, help="Semitones")] = 0.0,
    block: Annotated[float, typer.Option(min=0.02, max=1.5, help="Seconds per block; less is faster to hear")] = 0.25,
    crossfade: Annotated[
        float, typer.Option(min=0.01, max=0.15, help="Seconds that are heard behind a block; more sounds better")
    ] = 0.05,
    past: Annotated[float, typer.Option(min=0.05, max=5, help="Seconds that are heard before a block")] = 2.5,
    index_rate: Annotated[float, typer.Option(min=0, max=1, help="How much of the target's own sounds")] = 0.0,
    rms_mix_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="0: the source's loudness, 1: the voice's; default: as suits it")
    ] = None,
    threshold_db: Annotated[
        float, typer.Option(min=-60, max=0, help="Quieter input counts as silence; -60 is off")
    ] = -60.0,
    speaker_id: Annotated[int, typer.Option(min=0, max=2333, help="Of a voice with several speakers")] = 0,
    f0_method: Annotated[str, typer.Option(help="auto, rmvpe, swift, …")] = "auto",
) -> None:
    """Try a live conversion: a file is streamed as fast as it would be spoken, and the delays are measured."""
    rate, frames, pcm = _read(input)
    settings = {
        "block_seconds": block,
        "crossfade_seconds": crossfade,
        "extra_seconds": past,
        "pitch_shift": pitch_shift,
        "index_rate": index_rate,
        "rms_mix_rate": rms_mix_rate,
        "threshold_db": threshold_db,
        "speaker_id": speaker_id,
        "f0_method": f0_method,
    }
    with connected() as client, LiveConversion(client, voice, rate, **settings) as session:
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
