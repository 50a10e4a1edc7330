"""`voicewright voices import`, `extract`, `merge`, `inspect`, `verify`, `convert-file`: voices and their files.

The same for files on this machine, without a platform: `python -m libs.voice.tools`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from libs.client.api import Client
from libs.client.cli_jobs import FollowOption, watch
from libs.client.cli_voices import voices_app
from libs.client.models import Job
from libs.client.terminal import Exit, JsonOption, connected, err, fail, out, show_facts, show_json, speaks

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
NameOption = Annotated[str, typer.Option(help="Name of the voice; that of one of yours makes a new version of it")]
IndexOption = Annotated[Path | None, typer.Option(help="The voice's .index", exists=True, dir_okay=False)]
EncoderOption = Annotated[
    Literal["auto", "hubert", "builtin"],
    typer.Option(help="The content encoder it was trained with, when its file does not say; auto: RVC's (HuBERT)"),
]
RightsOption = Annotated[str, typer.Option(help="What you say about your right to use this voice; kept in its card")]


def _told(client: Client, job: Job, follow: bool) -> None:
    out.print(f"Job {job.id} is {job.status}: voice {job.voice}.", markup=False)
    if not follow:
        return
    done = watch(client, job)
    card = client.voice(done.voice or "").card or {}
    for note in card.get("notes", []):
        err.print(note, style="yellow", markup=False)
    out.print(f"Voice: {done.voice}.", markup=False)


@voices_app.command("import")
@speaks
def import_voice(
    file: FileArgument,
    name: NameOption,
    index: IndexOption = None,
    encoder: EncoderOption = "auto",
    rights: RightsOption = "",
    follow: FollowOption = False,
) -> None:
    """Take in a voice: a .pth or .safetensors, or a zip of RVC, Applio or this platform."""
    with connected() as client:
        _told(client, client.import_voice(file, name, index=index, encoder=encoder, rights=rights), follow)


@voices_app.command("extract")
@speaks
def extract_voice(
    file: FileArgument,
    name: NameOption,
    index: IndexOption = None,
    config: Annotated[Path | None, typer.Option(help="Its config.json", exists=True, dir_okay=False)] = None,
    speaker: Annotated[int | None, typer.Option(min=0, help="Keep this speaker alone")] = None,
    encoder: EncoderOption = "auto",
    rights: RightsOption = "",
    follow: FollowOption = False,
) -> None:
    """Make a voice of a training checkpoint, G_….pth."""
    with connected() as client:
        job = client.extract_voice(
            file, name, index=index, config=config, speaker=speaker, encoder=encoder, rights=rights
        )
        _told(client, job, follow)


@voices_app.command("merge")
@speaks
def merge_voices(
    first: str,
    second: str,
    name: NameOption,
    share: Annotated[float, typer.Option(min=0, max=1, help="How much of the first; the rest is the second's")] = 0.5,
    follow: FollowOption = False,
) -> None:
    """Mix two of your voices into a new one."""
    with connected() as client:
        _told(client, client.merge_voices(first, second, name, share=share), follow)


@voices_app.command("inspect")
@speaks
def inspect_voice(voice: str, json: JsonOption = False) -> None:
    """What is in a voice's file."""
    with connected() as client:
        facts = client.inspect_voice(voice)
    if json:
        show_json(facts)
        return
    values = facts.model_dump(mode="json").items()
    show_facts({name: ", ".join(value) or None if isinstance(value, list) else value for name, value in values})


@voices_app.command("verify")
@speaks
def verify_voice(voice: str, json: JsonOption = False) -> None:
    """Check a voice's files and let it say a test sound. Exit code 1 when it does not work."""
    with connected() as client:
        found = client.verify_voice(voice)
    if json:
        show_json(found)
    else:
        for problem in found.problems:
            err.print(problem.sentences(), style="red" if not found.valid else "yellow", markup=False)
        said = (
            "works" if found.usable else "is whole, and cannot be used on this platform" if found.valid else "is broken"
        )
        level = f", test sound at {found.level_db:.1f} dB" if found.level_db is not None else ""
        out.print(f"{voice} {said}{level}.", markup=False)
    if not found.usable:
        raise typer.Exit(int(Exit.refused))


@voices_app.command("convert-file")
@speaks
def convert_file(
    voice: str,
    form: Annotated[
        Literal["fp16", "fp32", "safetensors"], typer.Option(help="Half or full precision, or safetensors")
    ],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: <slug>-<form>.pth")] = None,
) -> None:
    """Save a voice's file in another form; the voice itself stays as it is."""
    with connected() as client:
        slug = client.voice(voice).slug
        target = output or Path(f"{slug}.safetensors" if form == "safetensors" else f"{slug}-{form}.pth")
        if not target.parent.is_dir():
            fail(f"There is no folder {target.parent}.", Exit.refused)
        size = client.convert_voice(voice, form, target)
    out.print(f"{target}: {size / 1e6:.1f} MB", markup=False)
