"""How does a voice leave the installation? As a zip that is made while it is sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from libs.common.errors import InvalidName, NotFound
from libs.common.paths import VoiceVersion
from services.gateway.zips import zip_of


def open_version(version: VoiceVersion) -> list[tuple[str, BinaryIO]]:
    """The files that the card names, and the card, opened: a deletion that comes later does not cut the export short.

    Of the weights that is the `.pth`, which other programs read; the same in our own form is another export.

    Raises NotFound when one is not there; a voice may be without an index, or have its weights elsewhere.
    """
    with ExitStack() as stack:
        opened: list[tuple[str, BinaryIO]] = []
        for path in _files(version):
            try:
                opened.append((path.name, stack.enter_context(path.open("rb"))))
            except OSError as error:
                raise NotFound(f"the voice's file {path.name} is not there") from error
        stack.pop_all()
        return opened


def _files(version: VoiceVersion) -> list[Path]:
    try:
        card = json.loads(version.card.read_bytes())
        named = [version.file(str(facts["file"])) for facts in card.get("files", ())]
    except (OSError, ValueError, AttributeError, TypeError, KeyError, InvalidName) as error:
        raise NotFound("the voice's card is not there, or is none") from error
    speaks_elsewhere = "weights" in card and card["weights"] is None
    others = [path for path in named if path != version.native]
    index = [version.index] if version.index.exists() else []
    return [*([] if speaks_elsewhere else [version.weights]), *index, *others, version.card]


def zipped(folder: str, files: list[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of a zip with `files` in `folder`, piece by piece; closes the files, also when nobody reads on."""
    with ExitStack() as stack:
        for _, source in files:
            stack.callback(source.close)
        yield from zip_of((f"{folder}/{name}", source) for name, source in files)
