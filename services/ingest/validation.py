"""Can this dataset be trained on? Every recording is there as it was sent, and together they are long enough."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.common.errors import DatasetEmpty, DatasetTooShort, VoiceSampleNotFound
from libs.common.events import InputFile
from libs.common.manifests import sha256_of, write_whole
from libs.common.paths import Paths
from services.ingest.examiners import Examiners, Refused

MOST_WARNINGS = 200
"""An event is a message and stays small; the result file holds all warnings."""


@dataclass(frozen=True)
class Recording:
    """One input that was found good."""

    sample_id: str
    sha256: str
    seconds: float
    warnings: list[dict[str, Any]]


@dataclass(frozen=True)
class Validated:
    """The result for a whole dataset."""

    dataset: str
    seconds: float
    recordings: list[Recording]

    @property
    def warnings(self) -> list[dict[str, Any]]:
        """All warnings of the reports, each with its recording."""
        return [
            {"sample_id": recording.sample_id, "sha256": recording.sha256, **warning}
            for recording in self.recordings
            for warning in recording.warnings
        ]

    def event_fields(self) -> dict[str, Any]:
        """The fields of `DatasetValidated`."""
        return {
            "dataset": self.dataset,
            "seconds": self.seconds,
            "recordings": len(self.recordings),
            "warnings": self.warnings[:MOST_WARNINGS],
        }


async def validate(
    dataset: str,
    inputs: tuple[InputFile, ...],
    min_seconds: float,
    *,
    paths: Paths,
    examiners: Examiners,
    progress: Callable[..., None],
    check: Callable[[], None],
) -> Validated:
    """Reads every input's file and report; a report or WAV that is lost is made again.

    Raises DatasetEmpty, VoiceSampleNotFound naming all that are missing or changed, and DatasetTooShort with both
    numbers, also for one of several speakers. `check` is called between recordings and may end the work.
    """
    if not inputs:
        raise DatasetEmpty(f"the dataset {dataset!r} has no recordings", dataset=dataset)
    recordings: list[Recording] = []
    of_speaker: dict[int, float] = {}
    missing: list[tuple[InputFile, str]] = []
    for done, item in enumerate(inputs):
        check()
        progress(done / len(inputs), done=done, total=len(inputs))
        if fault := await asyncio.to_thread(_fault, paths, dataset, item):
            missing.append((item, fault))
            continue
        report = await _report(paths, dataset, item, examiners)
        recordings.append(
            Recording(item.sample_id, item.sha256, float(report["duration_seconds"]), list(report["warnings"]))
        )
        of_speaker[item.speaker] = of_speaker.get(item.speaker, 0.0) + recordings[-1].seconds
    if missing:
        raise _not_found(dataset, missing)
    seconds = round(sum(recording.seconds for recording in recordings), 3)
    if seconds < min_seconds:
        raise DatasetTooShort(
            f"the {len(recordings)} recordings of {dataset!r} last {seconds:.1f} s together; "
            f"at least {min_seconds:g} s are needed",
            dataset=dataset,
            seconds=seconds,
            min_seconds=min_seconds,
        )
    _check_each(dataset, of_speaker, min_seconds)
    progress(1.0, done=len(inputs), total=len(inputs))
    return Validated(dataset, seconds, recordings)


def _check_each(dataset: str, of_speaker: dict[int, float], min_seconds: float) -> None:
    """Of several speakers each becomes a voice, so each needs what a voice needs."""
    short = {speaker: seconds for speaker, seconds in sorted(of_speaker.items()) if seconds < min_seconds}
    if short and len(of_speaker) > 1:
        named = ", ".join(f"speaker {speaker} {seconds:.1f} s" for speaker, seconds in short.items())
        raise DatasetTooShort(
            f"the recordings of {dataset!r} hold of {named}; at least {min_seconds:g} s are needed of each speaker",
            dataset=dataset,
            field="speaker_id",
            seconds=round(min(short.values()), 3),
            min_seconds=min_seconds,
            speakers=list(short),
        )


async def write_result(folder: Path, result: Validated) -> Path:
    """The result as a small JSON file in `folder`, all warnings included."""
    path = folder / "validation.json"
    content = asdict(result) | {"warnings": result.warnings}
    await asyncio.to_thread(write_whole, path, json.dumps(content, indent=1).encode())
    return path


def _fault(paths: Paths, dataset: str, item: InputFile) -> str:
    """What is wrong with the stored original, '' when nothing is."""
    path = paths.uploads(dataset).original(item.sha256, item.extension)
    try:
        return "" if sha256_of(path) == item.sha256 else "was changed after its upload"
    except FileNotFoundError:
        return "is missing"


def _not_found(dataset: str, missing: list[tuple[InputFile, str]]) -> VoiceSampleNotFound:
    named = ", ".join(f"{item.sample_id} ({item.sha256[:12]}….{item.extension}) {fault}" for item, fault in missing[:5])
    more = f", and {len(missing) - 5} more" if len(missing) > 5 else ""
    return VoiceSampleNotFound(
        f"in the dataset {dataset!r}: {named}{more}",
        dataset=dataset,
        samples=[item.sample_id for item, _ in missing[:100]],
        actions=("Upload these recordings again, or remove them from the dataset.",),
    )


async def _report(paths: Paths, dataset: str, item: InputFile, examiners: Examiners) -> dict[str, Any]:
    files = paths.uploads(dataset)
    if files.wav(item.sha256).is_file():
        try:
            report: dict[str, Any] = json.loads(await asyncio.to_thread(files.report(item.sha256).read_bytes))
            return report
        except (FileNotFoundError, ValueError):
            pass
    files.wavs.mkdir(exist_ok=True)
    try:
        report = await examiners.examine(files.original(item.sha256, item.extension), files.wav(item.sha256))
    except Refused as refused:
        raise _not_found(dataset, [(item, f"cannot be read: {refused}")]) from refused
    await asyncio.to_thread(write_whole, files.report(item.sha256), json.dumps(report, indent=1).encode())
    return report
