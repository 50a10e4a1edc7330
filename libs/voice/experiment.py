"""Where is what in RVC's experiment folder, is it whole, and what stands in its file list?"""

from __future__ import annotations

import contextlib
import io
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import soundfile
from numpy.typing import NDArray

from libs.audio.encode import WavWriter, atomic_file
from libs.common.errors import DatasetEmpty, InvalidInput
from libs.voice.atomic import storage_full_told

F0_FOLDERS = ("2b_f0nsf", "2b-f0nsf")
MUTE_SECONDS = 3
MUTE_LINES = 2


@dataclass(frozen=True)
class ExperimentFolders:
    """The five folders of one experiment. `width` of the features is 768 (v2) or 256 (v1)."""

    root: Path
    width: int = 768

    @property
    def gt_wavs(self) -> Path:
        """Pieces at the model's rate, float WAV."""
        return self.root / "0_gt_wavs"

    @property
    def wavs_16k(self) -> Path:
        """The same pieces at 16 kHz."""
        return self.root / "1_16k_wavs"

    @property
    def coarse(self) -> Path:
        """Pitch in 255 steps."""
        return self.root / "2a_f0"

    @property
    def f0(self) -> Path:
        """Pitch in Hz: `2b_f0nsf`, or RVC's `2b-f0nsf` when only that one exists."""
        ours, theirs = (self.root / name for name in F0_FOLDERS)
        return theirs if theirs.is_dir() and not ours.is_dir() else ours

    @property
    def features(self) -> Path:
        """Content features at 20 ms."""
        return self.root / f"3_feature{self.width}"

    @property
    def filelist(self) -> Path:
        """The list that the trainer reads."""
        return self.root / "filelist.txt"

    def all(self) -> tuple[Path, Path, Path, Path, Path]:
        """The five folders in order."""
        return self.gt_wavs, self.wavs_16k, self.coarse, self.f0, self.features

    def create(self) -> None:
        """Makes the folders that are missing."""
        for folder in self.all():
            folder.mkdir(parents=True, exist_ok=True)

    def piece(self, name: str) -> tuple[Path, Path, Path, Path, Path]:
        """The five files of piece `name` (`{i0}_{i1}`): note `.wav.npy` for pitch and `.npy` for features."""
        return (
            self.gt_wavs / f"{name}.wav",
            self.wavs_16k / f"{name}.wav",
            self.coarse / f"{name}.wav.npy",
            self.f0 / f"{name}.wav.npy",
            self.features / f"{name}.npy",
        )

    def names(self) -> list[str]:
        """Pieces present in all five folders (a name is what stands before the first dot), sorted by numbers."""
        found = [_names_in(folder) for folder in self.all()]
        return sorted(set.intersection(*found), key=_by_number)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `code` for programs, `path` relative to the experiment, `detail` for people."""

    code: str
    path: str
    detail: str


@dataclass(frozen=True)
class MuteFiles:
    """The silent piece that training mixes in, one set per encoder and rate."""

    folders: ExperimentFolders
    rate_name: str

    def files(self) -> tuple[Path, Path, Path, Path]:
        """gt wave, features, coarse and Hz files."""
        folders = self.folders
        return (
            folders.gt_wavs / f"mute{self.rate_name}.wav",
            folders.features / "mute.npy",
            folders.coarse / "mute.wav.npy",
            folders.f0 / "mute.wav.npy",
        )


def rate_name(sample_rate: int) -> str:
    """RVC's name of a rate: 40000 → `40k`."""
    return f"{sample_rate // 1000}k" if sample_rate % 1000 == 0 else str(sample_rate)


@contextlib.contextmanager
def piece_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that becomes `path` when the block ends well. Not flushed to the disk, unlike `atomic_file`.

    Flushing five files per piece costs as much as all the computing. What a power cut could take is noticed by the size
    that the recording's note holds, and made again. Raises StorageFull.
    """
    half = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with storage_full_told(path.name):
            with half.open("xb") as file:
                yield file
            half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def save_array(path: Path, array: NDArray[np.generic]) -> None:
    """An `.npy` of any shape, without pickle, whole under its name or not at all. Raises StorageFull."""
    whole = io.BytesIO()  # numpy's own writing into a file says of a full disk only how many bytes it wrote
    np.save(whole, array, allow_pickle=False)
    with piece_file(path) as file:
        file.write(whole.getbuffer())


def save_wave(path: Path, wave: NDArray[np.float32], sample_rate: int) -> None:
    """Mono `wave` `[T]` as a float WAV, as RVC writes it, whole under its name or not at all. Raises StorageFull."""
    with piece_file(path) as file, WavWriter(file, sample_rate, subtype="FLOAT") as writer:
        writer.write(wave)


def load_array(path: Path) -> NDArray[np.generic]:
    """Reads an `.npy` of any shape; pickled objects are refused (ValueError)."""
    array: NDArray[np.generic] = np.load(path, allow_pickle=False)
    return array


def write_filelist(
    folders: ExperimentFolders,
    *,
    mute: MuteFiles | None = None,
    speaker_id: int = 0,
    speakers: Mapping[int, int] | None = None,
    mute_lines: int = MUTE_LINES,
    has_f0: bool = True,
    seed: int = 0,
    relative_to: Path | None = None,
) -> int:
    """Writes `filelist.txt` in RVC's form, shuffled by `seed`; returns the number of pieces (mute lines not counted).

    gt wave | features | coarse | Hz | speaker; without f0 the two pitch fields are left out. Paths are absolute and as
    they are on disk, or relative to a folder. `speakers`: those of recordings that are not of `speaker_id`, by the
    recordings' numbers; each speaker has mute lines of its own. Raises DatasetEmpty without a whole piece.
    """
    names = folders.names()
    if not names:
        raise DatasetEmpty("No piece is present in all folders; run preprocessing with recordings that hold speech.")

    def line(files: tuple[Path, Path, Path, Path], speaker: int) -> str:
        chosen = files if has_f0 else files[:2]
        texts = [str(f.relative_to(relative_to) if relative_to else f.absolute()) for f in chosen]
        if any(mark in text for text in texts for mark in "|\r\n"):
            raise InvalidInput("filelist.txt cannot hold paths with `|` or line breaks; rename the data folder.")
        return "|".join([*texts, str(speaker)])

    known = {str(number): speaker for number, speaker in (speakers or {}).items()}
    lines = []
    found = set()
    for name in names:
        gt, _, coarse, f0, features = folders.piece(name)
        speaker = known.get(name.split("_")[0], speaker_id)
        lines.append(line((gt, features, coarse, f0), speaker))
        found.add(speaker)
    if mute is not None:
        for speaker in sorted(found):
            lines += [line(mute.files(), speaker)] * mute_lines
    order = np.random.default_rng(seed).permutation(len(lines))
    with atomic_file(folders.filelist) as file:
        file.write("\n".join(lines[i] for i in order).encode())
    return len(names)


def validate_experiment(folders: ExperimentFolders, *, sample_rate: int | None = None) -> list[Problem]:
    """What is missing or does not fit in an experiment folder; an empty list means that it can be trained on.

    Every piece is opened: five files, rates, lengths that agree (a pitch frame per 10 ms, features per 20 ms), widths,
    coarse steps in 1…255, no NaN; then every path of `filelist.txt`. `sample_rate`: what the pieces should have.
    """
    return list(_problems(folders, sample_rate))


def _problems(folders: ExperimentFolders, sample_rate: int | None) -> Iterator[Problem]:
    root = folders.root
    missing = [folder for folder in folders.all() if not folder.is_dir()]
    for folder in missing:
        yield Problem("folder_missing", folder.name, f"The folder {folder.name} is missing; run preprocessing.")
    if missing:
        return
    found = [_names_in(folder) for folder in folders.all()]
    every = sorted(set.union(*found), key=_by_number)
    if not every:
        yield Problem("empty", ".", "There are no pieces; upload recordings with speech and run preprocessing.")
    for name in every:
        paths = folders.piece(name)
        absent = [path for path, names in zip(paths, found, strict=True) if name not in names]
        for path in absent:
            yield Problem("file_missing", _relative(path, root), f"Piece {name} has no {_relative(path, root)}.")
        if not absent:
            yield from _piece_problems(folders, name, sample_rate)
    yield from _filelist_problems(folders)


def _piece_problems(folders: ExperimentFolders, name: str, sample_rate: int | None) -> Iterator[Problem]:
    gt_path, low_path, coarse_path, f0_path, features_path = paths = folders.piece(name)

    def problem(code: str, path: Path, detail: str) -> Problem:
        return Problem(code, _relative(path, folders.root), f"{_relative(path, folders.root)}: {detail}")

    unreadable = False
    for path in paths:
        try:
            soundfile.info(path) if path.suffix == ".wav" else load_array(path)
        except Exception as error:
            unreadable = True
            yield problem("unreadable", path, f"cannot be read ({type(error).__name__}); prepare it again.")
    if unreadable:
        return
    gt, low = soundfile.info(gt_path), soundfile.info(low_path)
    coarse, f0, features = load_array(coarse_path), load_array(f0_path), load_array(features_path)
    if sample_rate is not None and gt.samplerate != sample_rate:
        yield problem("wrong_rate", gt_path, f"has {gt.samplerate} Hz, {sample_rate} Hz is needed.")
    if low.samplerate != 16000:
        yield problem("wrong_rate", low_path, f"has {low.samplerate} Hz, 16000 Hz is needed.")
    if abs(gt.frames / gt.samplerate - low.frames / low.samplerate) > 0.01:
        yield problem("length", low_path, f"lasts {low.duration:.2f} s, the piece {gt.duration:.2f} s.")
    frames = low.frames // 160
    if coarse.ndim != 1 or not np.issubdtype(coarse.dtype, np.integer) or not frames <= coarse.shape[0] <= frames + 1:
        yield problem(
            "shape", coarse_path, f"is {coarse.dtype} {list(coarse.shape)}, integers [{frames + 1}] expected."
        )
    elif coarse.size and not 1 <= int(coarse.min()) <= int(coarse.max()) <= 255:
        yield problem("range", coarse_path, "holds steps outside 1…255.")
    if f0.shape != coarse.shape or not np.issubdtype(f0.dtype, np.floating):
        yield problem("shape", f0_path, f"is {f0.dtype} {list(f0.shape)}, floats {list(coarse.shape)} expected.")
    elif not np.isfinite(f0).all():
        yield problem("not_finite", f0_path, "holds values that are not finite.")
    expected = (max(0, (low.frames - 400) // 320 + 1), folders.width)
    if features.shape != expected or features.dtype != np.float32:
        yield problem("shape", features_path, f"is {features.dtype} {list(features.shape)}, {list(expected)} expected.")
    elif not np.isfinite(features).all():
        yield problem("not_finite", features_path, "holds values that are not finite.")


def _filelist_problems(folders: ExperimentFolders) -> Iterator[Problem]:
    if not folders.filelist.is_file():
        yield Problem("file_missing", "filelist.txt", "filelist.txt is missing; run preprocessing to the end.")
        return
    for number, text in enumerate(folders.filelist.read_text().splitlines(), start=1):
        fields = text.split("|")
        if len(fields) not in (3, 5) or not fields[-1].isdigit():
            yield Problem("filelist", "filelist.txt", f"Line {number} of filelist.txt does not have 3 or 5 fields.")
            continue
        for field in fields[:-1]:
            path = Path(field) if Path(field).is_absolute() else folders.root / field
            if not path.is_file():
                yield Problem(
                    "filelist", "filelist.txt", f"Line {number} of filelist.txt names {path.name}, not there."
                )


def read_json(path: Path) -> dict[str, object] | None:
    """A small JSON object from disk, or None when it is absent or damaged."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: dict[str, object]) -> None:
    """A small JSON object, whole under its name or not at all."""
    with atomic_file(path) as file:
        file.write(json.dumps(value, indent=1, sort_keys=True).encode())


def _names_in(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    wanted = (".wav", ".npy")
    return {
        path.name.split(".", 1)[0]
        for path in folder.iterdir()
        if not path.name.startswith(".") and path.suffix in wanted
    }


def _by_number(name: str) -> tuple[tuple[int, str], ...]:
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in name.split("_"))


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root))
