"""What did a job that makes sounds make? Told from its manifest; while it works, from the records of its attempts."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any

from libs.common import manifests
from libs.common.errors import Conflict, NotFound, PlatformError
from libs.common.jobs import STEPS, JobKind, JobState, Step
from libs.common.media_types import MEDIA_TYPES
from libs.common.paths import ConvertedFiles, Paths
from services.gateway.conversions.schemas import ConversionResults, FileResult, FileState
from services.gateway.database import utcnow
from services.gateway.jobs.tables import Job, JobStep

STEM_BYTES = 180
"""File systems take names of 255 bytes; the rest is for an ending, a counter, and what a client puts around them."""
_UNSAFE = re.compile(r'[\x00-\x1f/\\:*?"<>|]')


class ResultsExpired(PlatformError):
    """The results are not kept any more"""

    status = 410
    code = "results_expired"
    suggested_actions = ("Start the same job again.",)


class NoResult(Conflict):
    """The job has no result"""

    code = "no_result"


@dataclass(frozen=True)
class Sound:
    """One file that was made: its name in the result, and where it is."""

    number: int
    name: str
    path: Path
    media_type: str


def step_of(kind: JobKind) -> Step:
    """The step whose manifest names the sounds of such jobs."""
    return STEPS[kind][-1]


def expires_at(job: Job, lifetime: timedelta) -> datetime | None:
    """Until when the sounds of a job that is over are kept."""
    return job.finished_at + lifetime if job.is_over and job.finished_at is not None else None


def listing(paths: Paths, job: Job, step: JobStep | None, lifetime: timedelta) -> ConversionResults:
    """Every recording or text of the job and what became of it. Blocking: it reads files."""
    known = {int(record["number"]): record for record in _records(paths, job, step)}
    names = _names(job)
    until = expires_at(job, lifetime)
    is_expired = until is not None and until < utcnow()
    files = [
        _result(known.get(one.number), one.number, one.name, names[one.number], job, is_expired) for one in job.sounding
    ]
    following = len(files) + 1
    files += [
        FileResult(number=number, name=str(item["name"]), state=FileState.failed, problem=item["problem"])
        for number, item in enumerate((job.summary or {}).get("refused", ()), start=following)
    ]
    return ConversionResults(
        job_id=job.id,
        status=job.state,
        is_partial=bool((job.summary or {}).get("is_partial")),
        expires_at=until,
        files=files,
    )


def sounds(paths: Paths, job: Job, step: JobStep | None, lifetime: timedelta) -> list[Sound]:
    """The files that a completed job made. Blocking.

    Raises NoResult while the job goes on and when it ended without one, ResultsExpired when the files are gone.
    """
    if not job.is_over:
        raise NoResult(f"the job is {job.status}", retryable=True, actions=("Wait until it has completed.",))
    if job.state is not JobState.completed or step is None or step.manifest is None:
        why = f": {job.error.get('detail', '')}" if job.error else ""
        raise NoResult(f"the job is {job.status}{why}", actions=("Start a new job.",))
    until = expires_at(job, lifetime)
    try:
        records = manifests.load(paths, step.manifest).data["files"]
        if until is not None and until < utcnow():
            raise FileNotFoundError
        names = _names(job)
        found = [
            Sound(
                number=int(record["number"]),
                name=names[int(record["number"])],
                path=paths.in_data(record["sound"]),
                media_type=MEDIA_TYPES[PurePosixPath(record["sound"]).suffix.lstrip(".")],
            )
            for record in records
            if record["sound"] is not None
        ]
        for sound in found:
            sound.path.stat()
    except (PlatformError, OSError, KeyError) as error:
        raise ResultsExpired(f"the sounds of {job.id} were kept until {until:%Y-%m-%d %H:%M} UTC") from error
    return found


def pick(found: list[Sound], number: int) -> Sound:
    """The sound with this number; raises NotFound when it has none."""
    for sound in found:
        if sound.number == number:
            return sound
    raise NotFound(f"number {number} of this job has no sound", actions=("See the job's results.",))


def _records(paths: Paths, job: Job, step: JobStep | None) -> list[dict[str, Any]]:
    """What is known of single inputs; the newest attempt speaks first, an earlier one where it is silent."""
    if step is not None and step.manifest is not None:
        try:
            return list(manifests.load(paths, step.manifest).data["files"])
        except (PlatformError, KeyError):
            return []
    told = [item for item in (job.error or {}).get("files", ()) if isinstance(item, dict) and "number" in item]
    if told or step is None:
        return told
    folder = paths.experiment(job.experiment).step(job.id, step_of(job.job_kind))
    found: dict[int, dict[str, Any]] = {}
    for attempt in folder.earlier_attempts(step.token + 1):
        for one in job.sounding:
            if one.number not in found:
                record = _read(ConvertedFiles(attempt).record(one.number))
                if record is not None:
                    found[one.number] = record
    return list(found.values())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and "number" in record else None


def _result(record: dict[str, Any] | None, number: int, name: str, file: str, job: Job, is_expired: bool) -> FileResult:
    is_completed = job.state is JobState.completed
    if record is None:
        # The records of a completed job are in its manifest, which goes with the sounds.
        state = FileState.expired if is_completed else FileState.left if job.is_over else FileState.waiting
        return FileResult(number=number, name=name, state=state)
    if record.get("problem"):
        return FileResult(number=number, name=name, state=FileState.failed, problem=record["problem"])
    if is_completed and is_expired:
        return FileResult(number=number, name=name, state=FileState.expired)
    if job.is_over and job.state is not JobState.completed:
        return FileResult(number=number, name=name, state=FileState.left)
    return FileResult(
        number=number,
        name=name,
        state=FileState.converted if job.job_kind is JobKind.conversion else FileState.said,
        file=file,
        seconds=record["seconds"],
        sample_rate=record["sample_rate"],
        size_bytes=record["size"],
        compute_seconds=record["compute_seconds"],
        voice_version=record["voice_version"],
    )


def _names(job: Job) -> dict[int, str]:
    """A name in the result for every input: as its owner calls it, safe as a file's name, and used once."""
    extension = str(job.options.get("format", "wav"))
    used: set[str] = set()
    names = {}
    for one in job.sounding:
        # A recording's name ends as its file did; a text's is whatever its owner wrote.
        base = PurePosixPath(one.name).name.rpartition(".")[0] if job.job_kind is JobKind.conversion else ""
        stem = _UNSAFE.sub("_", base or one.name)
        stem = stem.strip(". ").encode("utf-8", "replace")[:STEM_BYTES].decode("utf-8", "ignore").rstrip(". ")
        stem = stem or f"{'recording' if job.job_kind is JobKind.conversion else 'text'}-{one.number}"
        name, count = f"{stem}.{extension}", 1
        while name.lower() in used:
            count += 1
            name = f"{stem} ({count}).{extension}"
        used.add(name.lower())
        names[one.number] = name
    return names
