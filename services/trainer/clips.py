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


def chosen(
    files: Iterable[str], result: Mapping[str, Any], recordings: Iterable[Mapping[str, Any]]
) -> list[SpeakersClips]:
    """Of a manifest's `files` the 16 kHz pieces, by speaker, for the `result` of a training; at most 40 of each kind.

    `recordings`: what the manifest says of each: its `index`, with which its pieces' names begin, and its `speaker`
    where that is not 0.
    """
    speakers = [int(number) for number in result.get("speakers", [0])]
    whose = {str(recording["index"]): recording.get("speaker", 0) for recording in recordings}
    held = {str(source) for source in result["split"]["held_out_sources"]}
    most = max(FEWEST, CLIPS // len(speakers))
    pieces = [relative for relative in sorted(files) if "/1_16k_wavs/" in relative]
    found = []
    for speaker in speakers:
        own = [piece for piece in pieces if len(speakers) == 1 or whose[_source(piece)] == speaker]
        held_out = [piece for piece in own if _source(piece) in held]
        others = [piece for piece in own if _source(piece) not in held]
        found.append(SpeakersClips(speaker, tuple((held_out or others)[:most]), tuple(others[:most])))
    return [each for each in found if each.tried] or found[:1]


def _source(piece: str) -> str:
    """The number of the recording that a piece was cut from: `12` of `…/12_3.wav`."""
    return PurePath(piece).stem.split("_")[0]
