"""`python -m libs.voice.tools`: the tools for files on this machine, without a platform. Answers are JSON."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from libs.common.errors import PlatformError
from libs.voice import tools


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0 when it is done, 1 when a file is refused (the reason on stderr), 2 for a wrong command line."""
    given = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], dict[str, Any]] = given.run
    try:
        answer = run(given)
    except PlatformError as error:
        print(error.detail, file=sys.stderr)
        for action in error.actions:
            print(f"  {action}", file=sys.stderr)
        return 1
    print(json.dumps(answer, indent=1, ensure_ascii=False, default=str))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m libs.voice.tools", description="Tools for voice files.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def command(name: str, run: Callable[[argparse.Namespace], dict[str, Any]], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    look = command("inspect", _inspect, "Tell what is in a model file.")
    look.add_argument("file", type=Path)
    check = command("verify", _verify, "Open a voice, with its index, and let it speak.")
    check.add_argument("file", type=Path)
    check.add_argument("--index", type=Path)
    merge = command("merge", _merge, "Mix two voices.")
    merge.add_argument("first", type=Path)
    merge.add_argument("second", type=Path)
    merge.add_argument("output", type=Path)
    merge.add_argument("--share", type=float, default=0.5, help="of the first, 0 to 1 (0.5)")
    convert = command("convert", _convert, "Write a voice in another form.")
    convert.add_argument("source", type=Path)
    convert.add_argument("output", type=Path)
    convert.add_argument("--form", choices=("fp16", "fp32", "safetensors"), required=True)
    extract = command("extract", _extract, "Make a voice of a training checkpoint, G_….pth.")
    extract.add_argument("checkpoint", type=Path)
    extract.add_argument("output", type=Path, help="a file, or a folder: RVC's name is then taken")
    extract.add_argument("--config", type=Path, help="the experiment's config.json")
    extract.add_argument("--speaker", type=int, help="keep this speaker alone")
    unpack = command("unpack", _unpack, "Take voice, index and card out of a zip.")
    unpack.add_argument("archive", type=Path)
    unpack.add_argument("folder", type=Path)
    pack = command("pack", _pack, "Pack voice and index into a zip.")
    pack.add_argument("form", choices=("rvc", "applio", "voicewright"))
    pack.add_argument("model", type=Path)
    pack.add_argument("output", type=Path)
    pack.add_argument("--index", type=Path)
    return parser


def _inspect(given: argparse.Namespace) -> dict[str, Any]:
    return tools.inspect_model(given.file).as_dict()


def _verify(given: argparse.Namespace) -> dict[str, Any]:
    return asdict(tools.verify_voice(given.file, given.index))


def _merge(given: argparse.Namespace) -> dict[str, Any]:
    tools.merge_voices(given.first, given.second, given.share, given.output)
    return {"written": given.output}


def _convert(given: argparse.Namespace) -> dict[str, Any]:
    tools.convert_file(given.source, given.output, given.form)
    return {"written": given.output}


def _extract(given: argparse.Namespace) -> dict[str, Any]:
    written = tools.extract_voice(given.checkpoint, given.output, config=given.config, speaker=given.speaker)
    return {"written": written}


def _unpack(given: argparse.Namespace) -> dict[str, Any]:
    return asdict(tools.open_archive(given.archive, given.folder))


def _pack(given: argparse.Namespace) -> dict[str, Any]:
    tools.write_archive(given.form, given.model, given.index, None, given.output)
    return {"written": given.output}


if __name__ == "__main__":
    sys.exit(main())
