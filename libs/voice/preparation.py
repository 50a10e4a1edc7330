"""How does one recording become its share of RVC's training folders? Pieces, pitch, content; one file per call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from libs.audio.encode import write_wav
from libs.audio.stream import MonoStream
from libs.common.errors import Cancelled, InvalidInput, PlatformError
from libs.voice.content import ContentEncoder, card_of, encode_batch, frame_count
from libs.voice.experiment import (
    MUTE_SECONDS,
    ExperimentFolders,
    MuteFiles,
    rate_name,
    read_json,
    save_array,
    save_wave,
    write_json,
)
from libs.voice.pitch import PitchExtractor, coarse, f0_of_each, fill_unvoiced
from libs.voice.slicing import Piece, PieceSettings, SlicerSettings
from libs.voice.slicing_stream import slice_blocks

Float32 = NDArray[np.float32]
Int64 = NDArray[np.int64]

DONE_FOLDER = ".prepared"
GROUP_SAMPLES = 30 * 16000
"""Pieces of about this much sound go through the encoder in one call: enough to fill a batch, little to hold."""


@dataclass(frozen=True)
class PreparationSettings:
    """How recordings are prepared. `sample_rate` is the model's; `fill_unvoiced` interpolates pitch (newest RVC)."""

    sample_rate: int = 40000
    f0_method: str = "auto"
    fill_unvoiced: bool = False
    pieces: PieceSettings = field(default_factory=PieceSettings)
    slicer: SlicerSettings = field(default_factory=SlicerSettings)
    limit_seconds: float = 12 * 3600.0

    def __post_init__(self) -> None:
        if not 16000 <= self.sample_rate <= 48000:
            raise InvalidInput(
                f"sample_rate is {self.sample_rate} Hz; models have 16000…48000 Hz.", field="sample_rate"
            )


@dataclass(frozen=True)
class PreparedPiece:
    """One training piece with all that the five folders hold of it.

    `wave` float32 at the model rate · `wave16k` float32 `[L]` · `coarse` int64 and `f0` float32 Hz, `[L // 160 + 1]` ·
    `features` float32 `[Th, width]` at 20 ms.
    """

    number: int
    wave: Float32
    wave16k: Float32
    coarse: Int64
    f0: Float32
    features: Float32


@dataclass(frozen=True)
class RecordingResult:
    """What came of one recording: names of its pieces, their seconds, why others were dropped."""

    index: int
    pieces: tuple[str, ...]
    seconds_in: float
    seconds_kept: float
    dropped: dict[str, int]
    f0_method: str
    reused: bool = False


def prepare_blocks(
    blocks: Iterable[NDArray[np.floating]],
    settings: PreparationSettings,
    encoder: ContentEncoder,
    pitch: PitchExtractor,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_drop: Callable[[str], None] | None = None,
) -> Iterator[PreparedPiece]:
    """Yields the pieces of one recording that comes in `blocks`: float `[n]` at `settings.sample_rate` Hz.

    Memory holds a block, and the pieces of about 30 s. How the recording is divided changes nothing.

    Dropped pieces are told to `on_drop` by reason: `level` (silent, or beyond 2.5 of full scale), `short` (below one
    content frame, 25 ms), `content` (features that are not finite). Raises Cancelled when `should_stop` says so.
    """

    def drop(reason: str) -> None:
        if on_drop is not None:
            on_drop(reason)

    def check() -> None:
        if should_stop is not None and should_stop():
            raise Cancelled

    def prepared(group: list[Piece]) -> Iterator[PreparedPiece]:
        check()
        encoded = encode_batch(encoder, [piece.wave16k for piece in group])
        kept = []
        for piece, features in zip(group, encoded, strict=True):
            if np.isfinite(features).all():
                kept.append((piece, features))
            else:
                drop("content")
        tracks = f0_of_each(pitch, [piece.wave16k for piece, _ in kept], settings.f0_method)
        for (piece, features), f0 in zip(kept, tracks, strict=True):
            check()
            if settings.fill_unvoiced:
                f0 = fill_unvoiced(f0).astype(np.float32)
            yield PreparedPiece(piece.number, piece.wave, piece.wave16k, coarse(f0), f0, features)

    group: list[Piece] = []
    cut = slice_blocks(blocks, settings.sample_rate, settings.pieces, settings.slicer, on_drop=lambda _: drop("level"))
    for piece in cut:
        check()
        if frame_count(len(piece.wave16k)) == 0:
            drop("short")
            continue
        group.append(piece)
        if sum(len(p.wave16k) for p in group) >= GROUP_SAMPLES:
            yield from prepared(group)
            group = []
    if group:
        yield from prepared(group)


def prepare_recording(
    source: Path,
    index: int,
    folders: ExperimentFolders,
    settings: PreparationSettings,
    encoder: ContentEncoder,
    pitch: PitchExtractor,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> RecordingResult:
    """Prepares recording number `index` into `folders`, as files `{index}_{piece}`. May be called again at any time.

    A note under `.prepared/` says when a recording is complete, and from what (its bytes, settings, encoder, method):
    called again for the same, nothing is computed; for anything else the old pieces are removed first. A killed call
    leaves whole files and no note, and the next call makes them again. Calls for other numbers may run side by side.

    The file is decoded, filtered, cut and stored in one pass, so memory does not grow with its length.

    Raises what libs.audio.decode raises for bad sound, Cancelled when `should_stop` says so, StorageFull. Sound that
    turns out to be bad in its middle leaves no piece.
    """
    if encoder.width != folders.width:
        raise InvalidInput(
            f"The folder is for features of {folders.width} values and `{encoder.name}` gives {encoder.width}.",
            field="content_encoder",
        )
    folders.create()
    notes = folders.root / DONE_FOLDER
    notes.mkdir(exist_ok=True)
    note = notes / f"{index}.json"
    method = pitch.resolve(settings.f0_method)
    fingerprint = _fingerprint(source, settings, encoder, method)
    done = _read_note(note, fingerprint, folders)
    if done is not None:
        return done
    note.unlink(missing_ok=True)
    _remove(index, folders)

    sound = MonoStream(source, settings.sample_rate, limit_seconds=settings.limit_seconds)
    dropped: dict[str, int] = {}

    def count(reason: str) -> None:
        dropped[reason] = dropped.get(reason, 0) + 1

    names, samples = [], 0
    try:
        for piece in prepare_blocks(sound.blocks(), settings, encoder, pitch, should_stop=should_stop, on_drop=count):
            name = f"{index}_{piece.number}"
            _store(piece, name, folders, settings.sample_rate)
            names.append(name)
            samples += len(piece.wave)
    except PlatformError:
        _remove(index, folders)
        raise
    result = RecordingResult(index, tuple(names), sound.seconds, samples / settings.sample_rate, dropped, method)
    write_json(note, {"fingerprint": fingerprint, "result": asdict(result), "bytes": _bytes_of(result, folders)})
    return result


def ensure_mute(root: Path, sample_rate: int, encoder: ContentEncoder) -> MuteFiles:
    """The silent piece of RVC (3 s) under `root`, made once per encoder: its features are the encoder's on silence."""
    folders = ExperimentFolders(root / f"{encoder.name}-{encoder.checksum[:12]}", encoder.width)
    mute = MuteFiles(folders, rate_name(sample_rate))
    gt, features, coarse_file, f0_file = mute.files()
    folders.create()
    if not gt.is_file():
        write_wav(gt, np.zeros(MUTE_SECONDS * sample_rate, dtype=np.float32), sample_rate)
    silence = np.zeros(MUTE_SECONDS * 16000, dtype=np.float32)
    frames = len(silence) // 160 + 1
    if not coarse_file.is_file():
        save_array(coarse_file, np.ones(frames, dtype=np.int64))
    if not f0_file.is_file():
        save_array(f0_file, np.zeros(frames, dtype=np.float32))
    if not features.is_file():
        save_array(features, encoder.encode(silence))
    return mute


def _store(piece: PreparedPiece, name: str, folders: ExperimentFolders, sample_rate: int) -> None:
    gt, low, coarse_file, f0_file, features = folders.piece(name)
    save_wave(gt, piece.wave, sample_rate)
    save_wave(low, piece.wave16k, 16000)
    save_array(coarse_file, piece.coarse)
    save_array(f0_file, piece.f0)
    save_array(features, piece.features)


def _remove(index: int, folders: ExperimentFolders) -> None:
    """What an earlier or a failed call left of recording `index`."""
    for folder in folders.all():
        for stale in (*folder.glob(f"{index}_*"), *folder.glob(f".{index}_*.part")):
            stale.unlink(missing_ok=True)


def _fingerprint(source: Path, settings: PreparationSettings, encoder: ContentEncoder, method: str) -> str:
    """Everything that the pieces depend on, as one hash."""
    with source.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    parts = {"source": content, "settings": asdict(settings), "encoder": card_of(encoder), "f0": method}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read_note(note: Path, fingerprint: str, folders: ExperimentFolders) -> RecordingResult | None:
    """The result of an earlier call for the same recording, when all its files are still there."""
    document = read_json(note)
    if document is None or document.get("fingerprint") != fingerprint:
        return None
    try:
        stored = dict(document["result"])  # type: ignore[call-overload]
        result = RecordingResult(**(stored | {"pieces": tuple(stored["pieces"]), "reused": True}))
    except (KeyError, TypeError, ValueError):
        return None
    return result if document.get("bytes") == _bytes_of(result, folders) else None


def _bytes_of(result: RecordingResult, folders: ExperimentFolders) -> int | None:
    """Size of all files of a recording together; None when one is missing."""
    try:
        return sum(path.stat().st_size for name in result.pieces for path in folders.piece(name))
    except FileNotFoundError:
        return None
