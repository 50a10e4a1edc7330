"""What does a training run learn from? The pieces of an experiment, checked, split by source, drawn repeatably."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from libs.common.errors import DatasetEmpty, DatasetNotPrepared, DatasetTooShort
from libs.common.speakers import HIGHEST_SPEAKER, SPEAKERS

SLACK_FRAMES = 12
"""How far the lengths of sound, features and pitch of one piece may differ: edges of windows, not another piece."""
SHORTEST_FRAMES = 10
_PIECE = re.compile(r"^(?P<source>.+)_(?P<piece>\d+)$")


@dataclass(frozen=True)
class Piece:
    """One line of `filelist.txt`. `frames`: 10 ms frames that sound, content and pitch all have.

    `coarse` and `f0` are None for a list without pitch.
    """

    name: str
    wave: Path
    content: Path
    coarse: Path | None
    f0: Path | None
    speaker: int
    frames: int

    @property
    def source(self) -> str:
        """The recording that this piece was cut from: `12` of `12_3`."""
        match = _PIECE.match(self.name)
        return match["source"] if match else self.name

    @property
    def is_mute(self) -> bool:
        """The silent entries that RVC adds: always learnt from, never held out."""
        return self.name.startswith("mute")


@dataclass(frozen=True)
class Split:
    """Who is learnt from and who is held out. `by`: `source`, `piece` (a single source's last pieces), or `none`; of
    several speakers, the first of these that was the way of one of them."""

    training: tuple[Piece, ...]
    held_out: tuple[Piece, ...]
    by: str

    def as_dict(self) -> dict[str, Any]:
        """For the record of the run."""
        return {
            "by": self.by,
            "held_out_sources": sorted({piece.source for piece in self.held_out}),
            "held_out_pieces": len(self.held_out),
            "held_out_seconds": sum(piece.frames for piece in self.held_out) / 100,
            "training_pieces": len(self.training),
            "training_seconds": sum(piece.frames for piece in self.training) / 100,
        }


def read_pieces(
    folder: Path, sample_rate: int, content_width: int, filelist: Path | None = None, *, needs_f0: bool = True
) -> list[Piece]:
    """The pieces that `filelist.txt` names, each checked in full: files, shapes, lengths that agree, finite values.

    Paths in the list are absolute, or relative to the list's folder. A voice without pitch (`needs_f0` false) also
    learns from lists of three fields, and leaves the pitch of others alone. Raises DatasetNotPrepared naming the first
    file at fault, DatasetEmpty when the list names nothing, DatasetTooShort when every piece is under 0.1 s.
    """
    listing = filelist if filelist is not None else folder / "filelist.txt"
    try:
        lines = [line for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    except FileNotFoundError:
        raise DatasetNotPrepared(f"{listing.name} is missing in the experiment {folder.name}") from None
    except UnicodeDecodeError:
        raise DatasetNotPrepared(f"{listing.name} is not UTF-8 text") from None
    if not lines:
        raise DatasetEmpty(f"{listing.name} names no piece")
    pieces = [
        _checked(line, number, listing, sample_rate, content_width, needs_f0) for number, line in enumerate(lines, 1)
    ]
    usable = [piece for piece in pieces if piece.frames >= SHORTEST_FRAMES]
    if not any(not piece.is_mute for piece in usable):
        raise DatasetTooShort(f"none of the {len(pieces)} pieces is longer than {SHORTEST_FRAMES / 100} s of speech")
    # the list is shuffled by its writer; our order must depend on nothing but its content
    return sorted(usable, key=lambda piece: (piece.name, piece.wave.as_posix(), piece.speaker))


def _checked(line: str, number: int, listing: Path, sample_rate: int, content_width: int, needs_f0: bool) -> Piece:
    fields = line.split("|")
    if len(fields) not in ((5,) if needs_f0 else (3, 5)):
        wanted = "5 are needed" if needs_f0 else "3 or 5 are needed"
        raise DatasetNotPrepared(f"{listing.name} line {number} has {len(fields)} fields; {wanted}")
    try:
        speaker = int(fields[-1])
    except ValueError:
        raise DatasetNotPrepared(f"{listing.name} line {number}: speaker {fields[-1]!r} is no number") from None
    if not 0 <= speaker < SPEAKERS:
        raise DatasetNotPrepared(f"{listing.name} line {number}: speaker {speaker} is outside 0…{HIGHEST_SPEAKER}")
    wave, content, *pitch = (listing.parent / field.replace("\\\\", "/") for field in fields[:-1])
    try:
        info = soundfile.info(str(wave))
    except (soundfile.LibsndfileError, OSError) as error:
        raise DatasetNotPrepared(f"{wave.name} of {listing.name} line {number} cannot be read: {error}") from None
    if info.samplerate != sample_rate or info.channels != 1:
        raise DatasetNotPrepared(
            f"{wave.name} has {info.samplerate} Hz and {info.channels} channels; {sample_rate} Hz mono is needed"
        )
    features = _array(content, 2)
    if features.shape[1] != content_width:
        raise DatasetNotPrepared(f"{content.name} has width {features.shape[1]}; {content_width} is needed")
    lengths = [info.frames // (sample_rate // 100), 2 * features.shape[0]]
    coarse, f0 = pitch if needs_f0 else (None, None)
    if coarse is not None and f0 is not None:
        lengths += _pitch_lengths(coarse, f0)
    if max(lengths) - min(lengths) > SLACK_FRAMES:
        raise DatasetNotPrepared(
            f"{wave.name}: sound, content, coarse pitch and F0 have {', '.join(map(str, lengths))} frames; "
            "they are not of one piece"
        )
    return Piece(wave.name.split(".")[0], wave, content, coarse, f0, speaker, min(lengths))


def _pitch_lengths(coarse: Path, f0: Path) -> list[int]:
    steps, hertz = _array(coarse, 1), _array(f0, 1)
    if not np.issubdtype(steps.dtype, np.integer) or (steps.size and not 1 <= steps.min() <= steps.max() <= 255):
        raise DatasetNotPrepared(f"{coarse.name} is not made of whole numbers from 1 to 255")
    if hertz.size and float(hertz.min()) < 0:
        raise DatasetNotPrepared(f"{f0.name} holds negative frequencies")
    return [steps.shape[0], hertz.shape[0]]


def _array(path: Path, dimensions: int) -> Any:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DatasetNotPrepared(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from None
    if array.ndim != dimensions or not np.issubdtype(array.dtype, np.number):
        raise DatasetNotPrepared(f"{path.name} has shape {list(array.shape)}; {dimensions} dimensions are needed")
    if not np.isfinite(array).all():
        raise DatasetNotPrepared(f"{path.name} holds values that are not finite")
    return array


def split_pieces(pieces: Sequence[Piece], share: float, seed: int) -> Split:
    """Hold out about `share` (0…0.5) of each speaker's speech, by whole sources: at least one, never all.

    A speaker's single source gives its last pieces instead, a single piece gives nothing. A function of the pieces'
    names, speakers, lengths and `seed` alone.
    """
    speech = [piece for piece in pieces if not piece.is_mute]
    held: set[Piece] = set()
    ways: list[str] = []
    for speaker in sorted({piece.speaker for piece in speech}):
        way, chosen = _held_out([piece for piece in speech if piece.speaker == speaker], share, seed)
        held |= chosen
        ways.append(way)
    by = next((way for way in ("source", "piece") if way in ways), "none")
    return Split(tuple(p for p in pieces if p not in held), tuple(p for p in pieces if p in held), by)


def _held_out(speech: Sequence[Piece], share: float, seed: int) -> tuple[str, set[Piece]]:
    """Of one speaker's pieces: in which way some are held out, and which."""
    sources = sorted({piece.source for piece in speech})
    if share <= 0 or len(speech) < 2:
        return "none", set()
    if len(sources) == 1:
        ordered = sorted(speech, key=lambda piece: int(m["piece"]) if (m := _PIECE.match(piece.name)) else 0)
        return "piece", set(ordered[-max(1, min(round(share * len(ordered)), len(ordered) - 1)) :])
    lengths = {name: sum(piece.frames for piece in speech if piece.source == name) for name in sources}
    budget = share * sum(lengths.values())
    order = list(sources)
    random.Random(seed).shuffle(order)
    chosen: list[str] = []
    for name in order:
        if len(chosen) < len(sources) - 1 and sum(lengths[c] for c in chosen) + lengths[name] <= budget:
            chosen.append(name)
    if not chosen:
        chosen = [min(order, key=lambda name: lengths[name])]
    return "source", {piece for piece in speech if piece.source in chosen}


def fingerprint(pieces: Sequence[Piece]) -> str:
    """SHA-256 over names, speakers, lengths and file sizes: another dataset under the same name is noticed."""
    facts = [
        [p.name, p.speaker, p.frames, *(f.stat().st_size for f in (p.wave, p.content, p.coarse, p.f0) if f is not None)]
        for p in pieces
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()
