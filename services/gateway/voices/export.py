"""How does a voice leave the installation? As a zip that is made while it is sent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from typing import BinaryIO

from libs.common.errors import NotFound
from libs.common.paths import VoiceVersion
from services.gateway.zips import zip_of


def open_version(version: VoiceVersion) -> list[tuple[str, BinaryIO]]:
    """Weights, index and card, opened: a deletion that comes later does not cut the export short.

    Raises NotFound when the weights or the card are not there; a voice may be without an index.
    """
    with ExitStack() as stack:
        opened: list[tuple[str, BinaryIO]] = []
        for path in (version.weights, version.index, version.card):
            try:
                opened.append((path.name, stack.enter_context(path.open("rb"))))
            except OSError as error:
                if path != version.index:
                    raise NotFound(f"the voice's file {path.name} is not there") from error
        stack.pop_all()
        return opened


def zipped(folder: str, files: list[tuple[str, BinaryIO]]) -> Iterator[bytes]:
    """The bytes of a zip with `files` in `folder`, piece by piece; closes the files, also when nobody reads on."""
    with ExitStack() as stack:
        for _, source in files:
            stack.callback(source.close)
        yield from zip_of((f"{folder}/{name}", source) for name, source in files)
