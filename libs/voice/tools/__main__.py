"""Voice files on this machine, without a platform: `python -m libs.voice.tools inspect voice.pth`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec

import typer

from libs.common.errors import PlatformError
from libs.voice import tools
from libs.voice.tools.pack import plain_name

P = ParamSpec("P")

FileArgument = Annotated[Path, typer.Argument(exists=True, dir_okay=False)]
IndexOption = Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="The voice's .index")]
OutputOption = Annotated[Path, typer.Option("--output", "-o")]

app = typer.Typer(
    help="Look into voice files, try, merge, convert, extract, index, pack and unpack them. Nothing in a file is run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _speaks(command: Callable[P, Any]) -> Callable[P, None]:
    """Prints what a command found as JSON; a refusal is one sentence on stderr and exit code 1."""

    @wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            found = command(*args, **kwargs)
        except PlatformError as error:
            sys.stderr.write(f"{error.title()}: {error.detail}\n")
            raise typer.Exit(1) from None
        if found is not None:
            sys.stdout.write(json.dumps(found, indent=1, ensure_ascii=False, default=str) + "\n")

    return wrapped


@app.command()
@_speaks
def inspect(file: FileArgument) -> dict[str, Any]:
    """What is in a voice, training checkpoint or discriminator."""
    return tools.inspect_model(file).as_dict()


@app.command()
@_speaks
def verify(file: FileArgument, index: IndexOption = None) -> dict[str, Any]:
    """Open a voice and let it say a test sound."""
    return asdict(tools.verify_voice(file, index))


@app.command()
@_speaks
def merge(
    first: FileArgument,
    second: FileArgument,
    output: OutputOption,
    share: Annotated[float, typer.Option(min=0, max=1, help="How much of the first; the rest is the second's")] = 0.5,
) -> None:
    """Mix two voices of one network."""
    tools.merge_voices(first, second, share, output)


@app.command()
@_speaks
def convert(
    file: FileArgument,
    output: OutputOption,
    form: Annotated[Literal["fp16", "fp32", "safetensors"], typer.Option()],
) -> None:
    """A voice in half or full precision, or as safetensors."""
    tools.convert_file(file, output, form)


@app.command()
@_speaks
def extract(
    checkpoint: FileArgument,
    output: OutputOption,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Its config.json")] = None,
    speaker: Annotated[int | None, typer.Option(min=0, help="Keep this speaker alone")] = None,
) -> dict[str, str]:
    """The voice in a training checkpoint, `G_….pth`."""
    return {"voice": str(tools.extract_voice(checkpoint, output, config=config, speaker=speaker))}


@app.command()
@_speaks
def features(index: FileArgument, output: OutputOption) -> dict[str, Any]:
    """The vectors of an index as RVC's total_fea.npy."""
    return {"rows": tools.write_total_features(index, output)}


@app.command("index")
@_speaks
def build_index(
    features: Annotated[Path, typer.Argument(exists=True, help="total_fea.npy, or a folder 3_feature…")],
    into: Annotated[Path, typer.Option("--into", exists=True, file_okay=False)],
    name: Annotated[str, typer.Option(help="The voice's name in the names of the files")],
) -> dict[str, str]:
    """RVC's trained_… and added_….index from features."""
    trained, added = tools.build_rvc_index(features, into, plain_name(name))
    return {"trained": str(trained), "added": str(added)}


@app.command()
@_speaks
def pack(
    file: FileArgument,
    output: OutputOption,
    form: Annotated[Literal["rvc", "applio", "voicewright"], typer.Option()] = "voicewright",
    index: IndexOption = None,
) -> None:
    """A voice and its index as a zip for RVC, Applio or this platform."""
    tools.write_archive(form, file, index, None, output)


@app.command()
@_speaks
def unpack(archive: FileArgument, into: Annotated[Path, typer.Option("--into", file_okay=False)]) -> dict[str, Any]:
    """Take the voice and its index out of such a zip."""
    return asdict(tools.open_archive(archive, into))


if __name__ == "__main__":
    app()
