"""`voicewright convert` and `voices`: use what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.text import Text

from libs.client.terminal import connected, out, seconds, show_json, speaks, table, when

voices_app = typer.Typer(help="Trained voices.", no_args_is_help=True)


@speaks
def convert(
    recording: Annotated[Path, typer.Argument(help="The recording to convert", exists=True, dir_okay=False)],
    voice: Annotated[str, typer.Option(help="Name, slug or id of the voice")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the result goes: .wav, .flac, .mp3 or .ogg")],
    pitch_shift: Annotated[float | None, typer.Option(help="Semitones; -12 for a high voice into a low one")] = None,
    index_rate: Annotated[float | None, typer.Option(min=0, max=1, help="How much of the target's own sounds")] = None,
    protect: Annotated[float | None, typer.Option(min=0, max=0.5, help="Keep consonants; 0.5 is off")] = None,
    rms_mix_rate: Annotated[float | None, typer.Option(min=0, max=1, help="0 keeps the source's loudness")] = None,
    f0_method: Annotated[str | None, typer.Option(help="auto, rmvpe, swift, harvest, …")] = None,
    format: Annotated[
        Literal["wav", "flac", "mp3", "ogg"] | None, typer.Option(help="Default: by the suffix of the output")
    ] = None,
) -> None:
    """Say a recording in a trained voice."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if format is None and output.suffix.lower() not in (".wav", ".flac", ".mp3", ".ogg"):
        raise typer.BadParameter("end it in .wav, .flac, .mp3 or .ogg, or name a --format", param_hint="--output")
    with connected() as client:
        made = client.convert(
            recording,
            voice,
            output,
            pitch_shift=pitch_shift,
            index_rate=index_rate,
            protect=protect,
            rms_mix_rate=rms_mix_rate,
            f0_method=f0_method,
            format=format,
        )
    speed = f", {1 / made.real_time_factor:.0f} × real time" if made.real_time_factor else ""
    out.print(f"{output}: {seconds(made.duration_seconds)} of {voice}{speed}.", markup=False)


@voices_app.command("list")
@speaks
def list_voices(json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """Your voices."""
    with connected() as client:
        found = client.voices()
    if json:
        show_json(found)
        return
    rows = table("id", "slug", "name", "status", "preset", "created")
    for voice in found:
        rows.add_row(voice.id, voice.slug, voice.name, voice.status, voice.preset or "–", when(voice.created_at))
    out.print(rows)


@voices_app.command("show")
@speaks
def show_voice(voice: str, json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False) -> None:
    """One voice and its card."""
    with connected() as client:
        found = client.voice(voice)
    if json:
        show_json(found)
        return
    rows = table("", "")
    for label, value in found.model_dump(mode="json", exclude={"card", "quality"}).items():
        rows.add_row(label, Text("–" if value is None else str(value)))
    for label, value in (found.quality or {}).items():
        rows.add_row(label, Text(f"{value:.3f}" if isinstance(value, float) else str(value)))
    out.print(rows)


@voices_app.command("export")
@speaks
def export_voice(
    voice: str,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: <slug>.zip")] = None,
    form: Annotated[
        Literal["voicewright", "rvc", "applio"], typer.Option(help="Whose program shall open it; ours keeps the card")
    ] = "voicewright",
) -> None:
    """Save a voice with its index as a zip."""
    with connected() as client:
        target = output or Path(f"{client.voice(voice).slug}.zip")
        size = client.export_voice(voice, target, form=form)
    out.print(f"{target}: {size / 1e6:.1f} MB", markup=False)


@voices_app.command("delete")
@speaks
def delete_voice(voice: str, yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False) -> None:
    """Delete a voice with all its versions."""
    if not yes:
        typer.confirm(f"Delete the voice {voice} with all its versions?", abort=True)
    with connected() as client:
        client.delete_voice(voice)
    out.print(f"{voice} is deleted.", markup=False)
