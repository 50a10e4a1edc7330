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
import torch

from libs.common.errors import DatasetEmpty, DatasetNotPrepared, DatasetTooShort
from libs.voice.recipe import Batch

SLACK_FRAMES = 12
"""How far the lengths of sound, features and pitch of one piece may differ: edges of windows, not another piece."""
SHORTEST_FRAMES = 10
_PIECE = re.compile(r"^(?P<source>.+)_(?P<piece>\d+)$")


@dataclass(frozen=True)
class Piece:
    """One line of `filelist.txt`. `frames`: 10 ms frames that sound, content and pitch all have."""

    name: str
    wave: Path
    content: Path
    coarse: Path
    f0: Path
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
    """Who is learnt from and who is held out. `by`: `source`, `piece` (a single source's last pieces), or `none`."""

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


def read_pieces(folder: Path, sample_rate: int, content_width: int, filelist: Path | None = None) -> list[Piece]:
    """The pieces that `filelist.txt` names, each checked in full: files, shapes, lengths that agree, finite values.

    Paths in the list are absolute, or relative to the list's folder. Raises DatasetNotPrepared naming the first file at
    fault, DatasetEmpty when the list names nothing, DatasetTooShort when every piece is under 0.1 s.
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
    pieces = [_checked(line, number, listing, sample_rate, content_width) for number, line in enumerate(lines, 1)]
    usable = [piece for piece in pieces if piece.frames >= SHORTEST_FRAMES]
    if not any(not piece.is_mute for piece in usable):
        raise DatasetTooShort(f"none of the {len(pieces)} pieces is longer than {SHORTEST_FRAMES / 100} s of speech")
    # the list is shuffled by its writer; our order must depend on nothing but its content
    return sorted(usable, key=lambda piece: (piece.name, piece.wave.as_posix()))


def _checked(line: str, number: int, listing: Path, sample_rate: int, content_width: int) -> Piece:
    fields = line.split("|")
    if len(fields) != 5:
        raise DatasetNotPrepared(f"{listing.name} line {number} has {len(fields)} fields; 5 are needed")
    try:
        speaker = int(fields[4])
    except ValueError:
        raise DatasetNotPrepared(f"{listing.name} line {number}: speaker {fields[4]!r} is no number") from None
    wave, content, coarse, f0 = ((listing.parent / field.replace("\\\\", "/")) for field in fields[:4])
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
    pitch, hertz = _array(coarse, 1), _array(f0, 1)
    if not np.issubdtype(pitch.dtype, np.integer) or (pitch.size and not 1 <= pitch.min() <= pitch.max() <= 255):
        raise DatasetNotPrepared(f"{coarse.name} is not made of whole numbers from 1 to 255")
    if hertz.size and float(hertz.min()) < 0:
        raise DatasetNotPrepared(f"{f0.name} holds negative frequencies")
    lengths = (info.frames // (sample_rate // 100), 2 * features.shape[0], pitch.shape[0], hertz.shape[0])
    if max(lengths) - min(lengths) > SLACK_FRAMES:
        raise DatasetNotPrepared(
            f"{wave.name}: sound, content, coarse pitch and F0 have {', '.join(map(str, lengths))} frames; "
            "they are not of one piece"
        )
    return Piece(wave.name.split(".")[0], wave, content, coarse, f0, speaker, min(lengths))


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
    """Hold out about `share` (0…0.5) of the speech, by whole sources: at least one, never all.

    A single source gives its last pieces instead, a single piece gives nothing. A function of the pieces' names,
    lengths and `seed` alone.
    """
    speech = [piece for piece in pieces if not piece.is_mute]
    sources = sorted({piece.source for piece in speech})
    if share <= 0 or len(speech) < 2:
        return Split(tuple(pieces), (), "none")
    if len(sources) == 1:
        ordered = sorted(speech, key=lambda piece: int(m["piece"]) if (m := _PIECE.match(piece.name)) else 0)
        held = set(ordered[-max(1, min(round(share * len(ordered)), len(ordered) - 1)) :])
        by = "piece"
    else:
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
        held = {piece for piece in speech if piece.source in chosen}
        by = "source"
    return Split(tuple(p for p in pieces if p not in held), tuple(p for p in pieces if p in held), by)


def fingerprint(pieces: Sequence[Piece]) -> str:
    """SHA-256 over names, speakers, lengths and file sizes: another dataset under the same name is noticed."""
    facts = [
        [p.name, p.speaker, p.frames, *(path.stat().st_size for path in (p.wave, p.content, p.coarse, p.f0))]
        for p in pieces
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class Batches:
    """The stream of training batches: a function of (pieces, seed, step) alone, so a resume needs only the step.

    Each epoch is a new order of all pieces; the last batch is filled from the start of the same order. Pieces longer
    than `segment_frames` are cropped at a random frame.
    """

    def __init__(
        self, pieces: Sequence[Piece], batch_size: int, seed: int, segment_frames: int, sample_rate: int
    ) -> None:
        self.pieces = list(pieces)
        self.batch_size = min(batch_size, len(self.pieces))
        self.seed = seed
        self.segment_frames = segment_frames
        self.hop = sample_rate // 100
        self.steps_per_epoch = -(-len(self.pieces) // self.batch_size)

    def __call__(self, step: int) -> Batch:
        """The batch of optimisation step `step`, on the CPU."""
        epoch, place = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng(stream_seed(self.seed, "order", epoch)).permutation(len(self.pieces))
        places = [(place * self.batch_size + i) % len(order) for i in range(self.batch_size)]
        crops = np.random.default_rng(stream_seed(self.seed, "crop", step))
        chosen = []
        for i in places:
            piece = self.pieces[int(order[i])]
            spare = piece.frames - self.segment_frames
            chosen.append((piece, int(crops.integers(0, spare + 1)) if spare > 0 else 0))
        generator = torch.Generator().manual_seed(stream_seed(self.seed, "noise", step))
        return collate(chosen, self.segment_frames, self.hop, step, generator)


def held_out_batches(
    pieces: Sequence[Piece], batch_size: int, segment_frames: int, most: int
) -> list[list[tuple[Piece, int]]]:
    """Which crops are judged: the middle of each piece, at most `most` pieces spread evenly; always the same ones."""
    every = max(1, -(-len(pieces) // most))
    crops = [(piece, max(0, (piece.frames - segment_frames) // 2)) for piece in list(pieces)[::every]]
    return [crops[i : i + batch_size] for i in range(0, len(crops), batch_size)]


def collate(
    chosen: Sequence[tuple[Piece, int]], segment_frames: int, hop: int, step: int, generator: torch.Generator
) -> Batch:
    """Read the crops (piece, first frame), pad them to the longest, longest first. Only the cropped part is read."""
    ordered = sorted(chosen, key=lambda item: -min(item[0].frames, segment_frames))
    lengths = [min(piece.frames, segment_frames) for piece, _ in ordered]
    longest = lengths[0]
    content: Any = None
    f0 = np.zeros((len(ordered), longest), np.float32)
    coarse = np.ones((len(ordered), longest), np.int64)
    wave = np.zeros((len(ordered), longest * hop), np.float32)
    for i, ((piece, first), frames) in enumerate(zip(ordered, lengths, strict=True)):
        features = np.load(piece.content, mmap_mode="r", allow_pickle=False)
        if content is None:
            content = np.zeros((len(ordered), longest, features.shape[1]), np.float32)
        last = first + frames
        halves = features[first // 2 : (last + 1) // 2].repeat(2, axis=0)
        content[i, :frames] = halves[first % 2 : first % 2 + frames]
        f0[i, :frames] = np.load(piece.f0, mmap_mode="r", allow_pickle=False)[first:last]
        coarse[i, :frames] = np.load(piece.coarse, mmap_mode="r", allow_pickle=False)[first:last]
        samples, _ = soundfile.read(str(piece.wave), frames=frames * hop, start=first * hop, dtype="float32")
        wave[i, : len(samples)] = samples
    return Batch(
        torch.from_numpy(content),
        torch.from_numpy(f0),
        torch.from_numpy(coarse),
        torch.from_numpy(wave),
        torch.tensor(lengths),
        torch.tensor([piece.speaker for piece, _ in ordered]),
        step,
        generator,
    )


def stream_seed(seed: int, purpose: str, number: int) -> int:
    """An independent 63-bit seed for each (seed, purpose, number)."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
