"""`voicewright convert` and `voices`: use what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from libs.client.cli_conversions import convert_as_job
from libs.client.sounds import sound_files
from libs.client.terminal import JsonOption, connected, out, seconds, show_facts, show_json, speaks, table, when

voices_app = typer.Typer(help="Trained voices.", no_args_is_help=True)


@speaks
def convert(
    recordings: Annotated[list[Path], typer.Argument(help="The recording; with --job many, and folders", exists=True)],
    voice: Annotated[str, typer.Option(help="Name, slug or id of the voice")],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", help="Where the result goes: .wav, .flac, .mp3 or .ogg; a folder for --job"),
    ],
    pitch_shift: Annotated[float | None, typer.Option(help="Semitones; -12 for a high voice into a low one")] = None,
    index_rate: Annotated[float | None, typer.Option(min=0, max=1, help="How much of the target's own sounds")] = None,
    protect: Annotated[float | None, typer.Option(min=0, max=0.5, help="Keep consonants; 0.5 is off")] = None,
    rms_mix_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="0: the source's loudness, 1: the voice's")
    ] = None,
    f0_method: Annotated[str | None, typer.Option(help="auto, rmvpe, swift, harvest, …")] = None,
    f0_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="A pitch of your own: lines of `seconds,Hz`")
    ] = None,
    filter_radius: Annotated[int | None, typer.Option(min=0, max=7, help="From 3 on smooths harvest's pitch")] = None,
    fill_unvoiced: Annotated[bool, typer.Option("--fill-unvoiced", help="Pitch through unvoiced frames")] = False,
    speaker_id: Annotated[int | None, typer.Option(min=0, max=2333, help="Of a voice with several speakers")] = None,
    split_silence: Annotated[bool, typer.Option("--split-silence", help="Leave silence out, put gaps back")] = False,
    autotune: Annotated[
        float | None, typer.Option(min=0, max=1, help="Pull pitch to the nearest note with this strength")
    ] = None,
    proposed_pitch: Annotated[
        float | None, typer.Option(min=50, max=1200, help="Move the voice to this register, in Hz")
    ] = None,
    formant_timbre: Annotated[float | None, typer.Option(min=0.1, max=16, help="Stretch the formants; 1: off")] = None,
    formant_quefrency: Annotated[float | None, typer.Option(min=0.1, max=16, help="Their detail, in ms")] = None,
    output_rate: Annotated[int | None, typer.Option(min=8000, max=192000, help="Hz; default: the voice's")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes all chance")] = None,
    format: Annotated[
        Literal["wav", "flac", "mp3", "ogg"] | None, typer.Option(help="Default: by the suffix of the output")
    ] = None,
    job: Annotated[bool, typer.Option("--job", help="Long recordings, several, or folders, as one job")] = False,
) -> None:
    """Say a recording in a trained voice; with --job long ones, many, or whole folders."""
    if not output.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {output.parent}", param_hint="--output")
    if not job and (len(recordings) > 1 or recordings[0].is_dir()):
        raise typer.BadParameter("several recordings need --job", param_hint="RECORDINGS")
    if not job and format is None and output.suffix.lower() not in (".wav", ".flac", ".mp3", ".ogg"):
        raise typer.BadParameter("end it in .wav, .flac, .mp3 or .ogg, or name a --format", param_hint="--output")
    if not job and output.exists() and output.samefile(recordings[0]):
        raise typer.BadParameter(f"{output} is the recording itself", param_hint="--output")
    options: dict[str, Any] = {
        "pitch_shift": pitch_shift,
        "index_rate": index_rate,
        "protect": protect,
        "rms_mix_rate": rms_mix_rate,
        "f0_method": f0_method,
        "f0_file": f0_file.read_text("utf-8", "replace") if f0_file is not None else None,
        "filter_radius": filter_radius,
        "fill_unvoiced": fill_unvoiced or None,
        "speaker_id": speaker_id,
        "split_silence": split_silence or None,
        "autotune": None if autotune is None else True,
        "autotune_strength": autotune,
        "proposed_pitch": None if proposed_pitch is None else True,
        "proposed_pitch_hz": proposed_pitch,
        "formant_timbre": formant_timbre,
        "formant_quefrency": formant_quefrency,
        "output_rate": output_rate,
        "seed": seed,
        "format": format,
    }
    with connected() as client:
        if job:
            convert_as_job(client, sound_files(recordings), voice, output, options)
            return
        made = client.convert(recordings[0], voice, output, **options)
    speed = f", {1 / made.real_time_factor:.0f} × real time" if made.real_time_factor else ""
    out.print(f"{output}: {seconds(made.duration_seconds)} of {voice}{speed}.", markup=False)


@voices_app.command("list")
@speaks
def list_voices(json: JsonOption = False) -> None:
    """Your voices."""
    with connected() as client:
        found = client.voices()
    if json:
        show_json(found)
        return
    rows = table("id", "slug", "name", "status", "base", "created")
    for voice in found:
        rows.add_row(voice.id, voice.slug, voice.name, voice.status, voice.base_model or "–", when(voice.created_at))
    out.print(rows)


@voices_app.command("show")
@speaks
def show_voice(voice: str, json: JsonOption = False) -> None:
    """One voice and its card."""
    with connected() as client:
        found = client.voice(voice)
    if json:
        show_json(found)
        return
    quality = {
        label: f"{value:.3f}" if isinstance(value, float) else value for label, value in (found.quality or {}).items()
    }
    show_facts(found.model_dump(mode="json", exclude={"card", "quality"}) | quality)


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
