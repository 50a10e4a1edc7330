"""How do long recordings become parts with their texts? For a process of its own: the aligner loads numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Piece:
    """From `begin` to `end`, in seconds of the recording, `text` is said; it lies in `<checksum>.wav`."""

    begin: float
    end: float
    text: str
    checksum: str
    seconds: float


def pieces(wav: Path, text: str, language: str, into: Path) -> list[Piece] | str:
    """The parts of `wav`, written to the folder `into`; or why it is not cut, as a clause that ends a sentence.

    Raises StorageFull.
    """
    from libs.common.errors import BrokenAudio, RecordingTooLong, Unavailable, UnsupportedAudio
    from libs.voice.xtts.cutting import CannotCut, cut_file

    try:
        cut = cut_file(wav, text, language, into)
    except (CannotCut, BrokenAudio, UnsupportedAudio, RecordingTooLong) as error:
        return str(error)
    except Unavailable as error:  # the aligner is not installed
        return error.detail
    return [Piece(part.begin, part.end, part.text, checksum, seconds) for part, checksum, seconds in cut]
