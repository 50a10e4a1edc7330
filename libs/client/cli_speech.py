"""`voicewright say`: a text in a trained voice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from libs.client.terminal import connected, err, out, seconds, speaks

SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".pcm")


@speaks
def say(
    text: Annotated[str, typer.Argument(help="What to say; - reads it from standard input")],
    voice: Annotated[str, typer.Option(help="Name, slug or id of a voice that speaks")],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Where the sound goes: .wav, .flac, .mp3, .ogg, .opus or .pcm")
    ],
    language: Annotated[str | None, typer.Option(help="Of the text; default: the voice's own")] = None,
    speed: Annotated[float | None, typer.Option(min=0.25, max=4, help="2 is twice as fast")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.05, max=1.5, help="How freely the voice varies")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes all chance")] = None,
    through: Annotated[str | None, typer.Option(help="A voice that converts what is said")] = None,
    pitch_shift: Annotated[float | None, typer.Option(min=-24, max=24, help="Semitones, with --through")] = None,
    format: Annotated[
        Literal["wav", "flac", "mp3", "ogg", "opus", "pcm"] | None,
        typer.Option(help="Default: by the suffix of the output"),
    ] = None,
) -> None:
    """Say a text in a trained voice."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if format is None and output.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"end it in {', '.join(SUFFIXES)}, or name a --format", param_hint="--output")
    words = sys.stdin.read() if text == "-" else text
    with connected() as client:
        made = client.synthesize(
            words,
            voice,
            output,
            language=language,
            speed=speed,
            temperature=temperature,
            seed=seed,
            through=through,
            pitch_shift=pitch_shift,
            format=format,
        )
    if made.left_out:
        err.print(f"{made.left_out} signs were left out: nobody can say them.", markup=False)
    out.print(f"{output}: {seconds(made.duration_seconds)} of {voice}.", markup=False)
