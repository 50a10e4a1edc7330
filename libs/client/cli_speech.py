"""`voicewright say`: a text in a trained voice, or with `--batch` all texts of a file as one job."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from libs.client.cli_results import follow_and_save
from libs.client.terminal import connected, err, out, seconds, speaks

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".pcm")
TABLES = (".csv", ".tsv")


@speaks
def say(
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="A .wav, .flac, .mp3, .ogg, .opus or .pcm; a folder for a batch"),
    ],
    text: Annotated[str | None, typer.Argument(help="What to say; - reads it from standard input")] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Texts for a sound each: a .csv with the column `text` (and name, voice, language), or lines",
        ),
    ] = None,
    voice: Annotated[str | None, typer.Option(help="Name, slug or id of a voice that speaks")] = None,
    language: Annotated[str | None, typer.Option(help="Of the text; default: the voice's own")] = None,
    speed: Annotated[float | None, typer.Option(min=0.25, max=4, help="2 is twice as fast")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.05, max=1.5, help="How freely the voice varies")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes all chance")] = None,
    through: Annotated[str | None, typer.Option(help="A voice that converts what is said")] = None,
    pitch_shift: Annotated[float | None, typer.Option(min=-24, max=24, help="Semitones, with --through")] = None,
    reference: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Instead of --voice: a recording whose voice is imitated"),
    ] = None,
    speaker: Annotated[str | None, typer.Option(help="Whose voice the reference has")] = None,
    consent: Annotated[
        str | None, typer.Option(help="What the speaker agreed to, and how you know; it is put on record")
    ] = None,
    format: Annotated[
        Literal["wav", "flac", "mp3", "ogg", "opus", "pcm"] | None,
        typer.Option(help="Default: by the suffix of the output"),
    ] = None,
) -> None:
    """Say a text in a trained voice, or all texts of a file."""
    if (text is None) is (batch is None):
        raise typer.BadParameter("name a text, or a file of texts with --batch, and not both", param_hint="TEXT")
    asked = {
        "language": language,
        "speed": speed,
        "temperature": temperature,
        "seed": seed,
        "through": through,
        "pitch_shift": pitch_shift,
        "format": format,
    }
    if batch is not None:
        if reference is not None:
            raise typer.BadParameter("a batch is said by voices that were trained", param_hint="--reference")
        say_all(batch, output, voice, asked)
        return
    if (voice is None) is (reference is None):
        raise typer.BadParameter("name a voice, or a --reference, and not both", param_hint="--voice")
    if reference is not None:
        asked |= {"speaker": speaker, "consent": consent}
    say_one(text or "", output, voice, reference, asked)


def say_all(batch: Path, output: Path, voice: str | None, asked: dict[str, Any]) -> None:
    """Has every text of a file said as one job, and saves the sounds in the folder `output`."""
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"{output} is no folder", param_hint="--output")
    media_type = "text/csv" if batch.suffix.lower() in TABLES else "text/plain"
    with connected() as client:
        job = client.add_speech_job(batch.read_bytes(), media_type, voice=voice, **asked)
        output.mkdir(parents=True, exist_ok=True)
        out.print(f"Job {job.id} is {job.status}: {job.name}.", markup=False)
        follow_and_save(client, job, output, lambda target: not target.exists() or not target.samefile(batch))


def say_one(text: str, output: Path, voice: str | None, reference: Path | None, asked: dict[str, Any]) -> None:
    """Has one text said, by a voice or by that of a recording, and saves the sound as `output`."""
    if reference is not None:
        for name in ("language", "speaker", "consent"):
            if not asked[name]:
                raise typer.BadParameter(f"a reference needs --{name}", param_hint=f"--{name}")
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if asked["format"] is None and output.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"end it in {', '.join(SUFFIXES)}, or name a --format", param_hint="--output")
    words = sys.stdin.read() if text == "-" else text
    with connected() as client:
        if reference is not None:
            made = client.imitate(words, reference, output, **asked)
        else:
            made = client.synthesize(words, voice or "", output, **asked)
    if made.left_out:
        err.print(f"{made.left_out} signs were left out: nobody can say them.", markup=False)
    out.print(f"{output}: {seconds(made.duration_seconds)} of {voice or asked['speaker']}.", markup=False)
