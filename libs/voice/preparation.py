"""How do recordings become RVC's training folders? Pieces, content, pitch; short recordings go through together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from libs.audio.encode import write_wav
from libs.audio.stream import MonoStream
from libs.common.errors import Cancelled, InvalidInput, PlatformError
from libs.voice.content import ContentEncoder, card_of, encode_batch, frame_count, precision_of
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
GROUP_SAMPLES = 60 * 16000
"""Pieces of about this much sound go through encoder and pitch in one call: enough to fill batches, little to hold."""


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

    Memory holds a block, and the pieces of about a minute. How the recording is divided changes nothing.

    Dropped pieces are told to `on_drop` by reason: `level` (silent, or beyond 2.5 of full scale), `short` (below one
    content frame, 25 ms), `content` (features that are not finite). Raises Cancelled when `should_stop` says so.
    """

    def drop(reason: str) -> None:
        if on_drop is not None:
            on_drop(reason)

    def prepared(group: list[Piece]) -> Iterator[PreparedPiece]:
        for made in _prepared(group, settings, encoder, pitch, should_stop):
            if made is None:
                drop("content")
            else:
                yield made

    group: list[Piece] = []
    for piece in _pieces(blocks, settings, drop, should_stop):
        group.append(piece)
        if _is_full(group):
            yield from prepared(group)
            group = []
    yield from prepared(group)


def _pieces(
    blocks: Iterable[NDArray[np.floating]],
    settings: PreparationSettings,
    drop: Callable[[str], None],
    should_stop: Callable[[], bool] | None,
) -> Iterator[Piece]:
    """The pieces of one recording that are long enough for a content frame."""
    cut = slice_blocks(blocks, settings.sample_rate, settings.pieces, settings.slicer, on_drop=lambda _: drop("level"))
    for piece in cut:
        _check(should_stop)
        if frame_count(len(piece.wave16k)):
            yield piece
        else:
            drop("short")


def _is_full(group: Sequence[Piece]) -> bool:
    return sum(len(piece.wave16k) for piece in group) >= GROUP_SAMPLES


def _prepared(
    group: Sequence[Piece],
    settings: PreparationSettings,
    encoder: ContentEncoder,
    pitch: PitchExtractor,
    should_stop: Callable[[], bool] | None,
) -> Iterator[PreparedPiece | None]:
    """For each piece of the group what the folders hold of it, in order; None where its features are not finite."""
    _check(should_stop)
    encoded = encode_batch(encoder, [piece.wave16k for piece in group])
    is_good = [bool(np.isfinite(features).all()) for features in encoded]
    waves = [piece.wave16k for piece, good in zip(group, is_good, strict=True) if good]
    tracks = iter(f0_of_each(pitch, waves, settings.f0_method))
    for piece, features, good in zip(group, encoded, is_good, strict=True):
        _check(should_stop)
        if not good:
            yield None
            continue
        f0 = next(tracks)
        if settings.fill_unvoiced:
            f0 = fill_unvoiced(f0).astype(np.float32)
        yield PreparedPiece(piece.number, piece.wave, piece.wave16k, coarse(f0), f0, features)


def _check(should_stop: Callable[[], bool] | None) -> None:
    if should_stop is not None and should_stop():
        raise Cancelled


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
    """`prepare_recordings` for one recording."""
    (result,) = prepare_recordings([(index, source)], folders, settings, encoder, pitch, should_stop=should_stop)
    return result


def prepare_recordings(
    sources: Iterable[tuple[int, Path]],
    folders: ExperimentFolders,
    settings: PreparationSettings,
    encoder: ContentEncoder,
    pitch: PitchExtractor,
    *,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[RecordingResult]:
    """Prepares recordings, each with its number, into `folders`, as files `{number}_{piece}`; yields those completed.

    Pieces of different recordings share the passes through encoder and pitch, about a minute of sound at a time, with
    the numbers that they have alone (to rounding). Files are decoded, filtered, cut and stored in one pass, so memory
    grows neither with their length nor with their count.

    A note under `.prepared/` says when a recording is complete, and from what (its bytes, settings, encoder, method):
    called again for the same, nothing is computed; for anything else the old pieces are removed first. A killed call
    leaves whole files, and notes of what was complete; the next call makes the rest again. Calls for other numbers may
    run side by side. May be called again at any time.

    Raises what libs.audio.decode raises for bad sound (after what was cut before it is stored), Cancelled when
    `should_stop` says so, StorageFull. After an error, what was not complete leaves no piece.
    """
    if encoder.width != folders.width:
        raise InvalidInput(
            f"The folder is for features of {folders.width} values and `{encoder.name}` gives {encoder.width}.",
            field="content_encoder",
        )
    folders.create()
    notes = folders.root / DONE_FOLDER
    notes.mkdir(exist_ok=True)
    method = pitch.resolve(settings.f0_method)
    unfinished: list[_Recording] = []
    group: list[tuple[_Recording, Piece]] = []

    def store_group() -> Iterator[RecordingResult]:
        waiting, group[:] = list(group), []
        made = _prepared([piece for _, piece in waiting], settings, encoder, pitch, should_stop)
        for (recording, _), piece in zip(waiting, made, strict=True):
            recording.keep(piece, folders, settings.sample_rate)
        for recording in [each for each in unfinished if each.is_cut]:
            result = recording.conclude(folders, settings.sample_rate, method)
            unfinished.remove(recording)
            yield result

    try:
        for index, source in sources:
            _check(should_stop)
            note = notes / f"{index}.json"
            fingerprint = _fingerprint(source, settings, encoder, method)
            done = _read_note(note, fingerprint, folders)
            if done is not None:
                yield done
                continue
            note.unlink(missing_ok=True)
            _remove(index, folders)
            sound = MonoStream(source, settings.sample_rate, limit_seconds=settings.limit_seconds)
            recording = _Recording(index, note, fingerprint, sound)
            unfinished.append(recording)
            try:
                for piece in _pieces(sound.blocks(), settings, recording.drop, should_stop):
                    group.append((recording, piece))
                    if _is_full([waiting for _, waiting in group]):
                        yield from store_group()
            except PlatformError:
                # those before it are complete, and the next attempt need not make them again
                group[:] = [item for item in group if item[0] is not recording]
                yield from store_group()
                raise
            recording.is_cut = True
        yield from store_group()
    except PlatformError:
        for recording in unfinished:
            _remove(recording.index, folders)
        raise


@dataclass(eq=False)
class _Recording:
    """A recording that is being prepared, and what is stored of it."""

    index: int
    note: Path
    fingerprint: str
    sound: MonoStream
    is_cut: bool = False
    names: list[str] = field(default_factory=list)
    samples: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    def drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def keep(self, piece: PreparedPiece | None, folders: ExperimentFolders, sample_rate: int) -> None:
        if piece is None:
            self.drop("content")
            return
        name = f"{self.index}_{piece.number}"
        _store(piece, name, folders, sample_rate)
        self.names.append(name)
        self.samples += len(piece.wave)

    def conclude(self, folders: ExperimentFolders, sample_rate: int, method: str) -> RecordingResult:
        """Writes the note that says that all of it is there."""
        kept = self.samples / sample_rate
        result = RecordingResult(self.index, tuple(self.names), self.sound.seconds, kept, self.dropped, method)
        size = _bytes_of(result, folders)
        write_json(self.note, {"fingerprint": self.fingerprint, "result": asdict(result), "bytes": size})
        return result


def ensure_mute(root: Path, sample_rate: int, encoder: ContentEncoder) -> MuteFiles:
    """The silent piece of RVC (3 s) under `root`, made once per encoder: its features are the encoder's on silence."""
    precision = precision_of(encoder)
    rounded = "" if precision == "fp32" else f"-{precision}"
    folders = ExperimentFolders(root / f"{encoder.name}-{encoder.checksum[:12]}{rounded}", encoder.width)
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
    parts: dict[str, object] = {"source": content, "settings": asdict(settings), "encoder": card_of(encoder)}
    parts |= {"f0": method, "precision": precision_of(encoder)}
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
