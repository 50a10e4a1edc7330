"""On which prepared clips is a voice tried? Held-out ones of each speaker, and others of theirs to compare with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

CLIPS, FEWEST = 40, 3


@dataclass(frozen=True)
class SpeakersClips:
    """Files of one speaker, as a manifest names them. `tried`: held out from training, or if none were, any;
    `others`: what the voice learned from."""

    speaker: int
    tried: tuple[str, ...]
    others: tuple[str, ...]


def chosen(files: Iterable[str], result: Mapping[str, Any], filelist: str) -> list[SpeakersClips]:
    """Of a manifest's `files` the 16 kHz pieces, by speaker, for the `result` of a training; at most 40 of each kind.

    `filelist`: the text of filelist.txt, which says whose each piece is where there is more than speaker 0.
    """
    speakers = [int(number) for number in result.get("speakers", [0])]
    whose = _whose(filelist) if len(speakers) > 1 else {}
    held = {str(source) for source in result["split"]["held_out_sources"]}
    most = max(FEWEST, CLIPS // len(speakers))
    pieces = [relative for relative in sorted(files) if "/1_16k_wavs/" in relative]
    found = []
    for speaker in speakers:
        own = [piece for piece in pieces if not whose or whose.get(PurePath(piece).stem) == speaker]
        held_out = [piece for piece in own if PurePath(piece).stem.split("_")[0] in held]
        others = [piece for piece in own if PurePath(piece).stem.split("_")[0] not in held]
        found.append(SpeakersClips(speaker, tuple((held_out or others)[:most]), tuple(others[:most])))
    return [each for each in found if each.tried] or found[:1]


def _whose(filelist: str) -> dict[str, int]:
    """Piece to speaker, as the lines of filelist.txt say: the first field is its wave, the last one the number."""
    lines = [line.split("|") for line in filelist.splitlines() if "|" in line]
    return {PurePath(fields[0]).name.split(".")[0]: int(fields[-1]) for fields in lines}
