"""How are many recordings converted, one after the other? Each is done, failed alone, or still to do.

    inputs ─▶ record of an earlier attempt? ─▶ begun ─▶ sounds/00001.wav ─▶ records/00001.json
                     taken over                          whole and flushed     says that it is done

A recording whose conversion ends the process again and again fails alone, so that one bad file is not the end of many.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from libs.common.errors import (
    Cancelled,
    NothingConverted,
    PlatformError,
    PoisonCommand,
    VoiceSampleNotFound,
    WorkFailed,
)
from libs.common.events import ConversionInput, ConvertRecordings
from libs.common.logs import get_logger
from libs.common.manifests import sha256_of
from libs.voice.chain import convert_file, sweep_leftovers
from services.inference.counting import counted
from services.inference.job_files import DEATHS, FileRecord, JobFiles
from services.inference.schemas import ConversionSettings
from services.inference.voices import Voices

log = get_logger("conversion.jobs")


class Report(Protocol):
    """Tells how far the step is, as `Work.report`."""

    def __call__(self, fraction: float, **fields: Any) -> None: ...


def convert_all(
    command: ConvertRecordings,
    files: JobFiles,
    voices: Voices,
    *,
    report: Report,
    mark: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> list[FileRecord]:
    """A record for every recording, at least one of them with a sound. Blocking.

    Raises Cancelled when `should_stop` says so (what is finished stays), NothingConverted when every recording failed,
    NotFound when the voice is gone, and retryable errors, which are about the platform and not about one recording.
    """
    settings = ConversionSettings.model_validate(command.settings)
    total = len(command.inputs)
    length = sum(recording.seconds for recording in command.inputs)
    records: list[FileRecord] = []
    behind = 0.0
    for recording in command.inputs:
        record = files.known(recording.number, command.attempt)
        if record is None:
            if should_stop():
                raise Cancelled

            def tell(share: float, recording: ConversionInput = recording, behind: float = behind) -> None:
                part = behind + share * recording.seconds
                fraction = part / length if length else (len(records) + share) / total
                report(fraction, done=len(records), total=total, message=recording.name)

            tell(0.0)
            record = _convert_one(command, recording, settings, files, voices, tell, mark, should_stop)
        records.append(record)
        behind += recording.seconds
    report(1.0, done=total, total=total)
    if all(record.sound is None for record in records):
        raise _nothing(records)
    return records


def _convert_one(
    command: ConvertRecordings,
    recording: ConversionInput,
    settings: ConversionSettings,
    files: JobFiles,
    voices: Voices,
    tell: Callable[[float], None],
    mark: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> FileRecord:
    number = recording.number
    if files.deaths(number) >= DEATHS:
        problem = PoisonCommand(f"{DEATHS} workers ended while they converted {recording.name!r}")
        return files.keep(_failed(files, command, recording, problem))
    voice = voices.get(command.voice)
    begun = files.own.begun(number)
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    mark(f"recording {number}")  # from here on a death counts against this recording, not against the job
    target = files.own.sound(number, settings.format.value)
    target.parent.mkdir(parents=True, exist_ok=True)
    sweep_leftovers(target.parent)  # of a worker that was killed here: a job has one worker at a time
    started = time.perf_counter()
    try:
        with counted("job") as told:
            made = convert_file(
                voice.converter,
                _source(files, recording),
                target,
                settings.conversion(),
                output_format=settings.format.value,
                output_rate=settings.output_rate,
                on_progress=tell,
                should_stop=should_stop,
            )
            told.done(made.seconds, time.perf_counter() - started)
    except (Cancelled, OSError):
        begun.unlink(missing_ok=True)
        raise
    except PlatformError as error:
        if error.retryable:
            begun.unlink(missing_ok=True)
            raise
        record = _failed(files, command, recording, error)
    except Exception as error:
        log.error("conversion.unexpected", recording=number, error=f"{type(error).__name__}: {error}", exc_info=error)
        record = _failed(files, command, recording, WorkFailed(f"{type(error).__name__}: {error}"[:500]))
    else:
        _flush(target)
        record = FileRecord(
            number=number,
            name=recording.name,
            sound=files.paths.relative(target),
            seconds=round(made.seconds, 3),
            sample_rate=made.sample_rate,
            size=target.stat().st_size,
            sha256=sha256_of(target),
            compute_seconds=round(time.perf_counter() - started, 3),
            voice_version=voice.version,
            voice_sha256=voice.sha256,
            attempt=command.attempt,
        )
    files.keep(record)
    begun.unlink(missing_ok=True)
    return record


def _failed(
    files: JobFiles, command: ConvertRecordings, recording: ConversionInput, error: PlatformError
) -> FileRecord:
    log.info("conversion.recording_failed", recording=recording.number, code=error.code, detail=error.detail)
    problem = files.paths.places.hidden(error.problem())
    return FileRecord(number=recording.number, name=recording.name, attempt=command.attempt, problem=problem)


def _source(files: JobFiles, recording: ConversionInput) -> Path:
    """The original; raises VoiceSampleNotFound when it is gone."""
    uploads = files.paths.uploads(recording.dataset) if recording.dataset else files.paths.job_uploads(files.job_id)
    original = uploads.original(recording.sha256, recording.extension)
    if not original.is_file():
        raise VoiceSampleNotFound(f"the recording {recording.name!r} is not there any more")
    return original


def _flush(path: Path) -> None:
    """The record must not outlive its sound in a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _nothing(records: list[FileRecord]) -> NothingConverted:
    first = records[0].problem or {}
    what = "the recording" if len(records) == 1 else f"none of the {len(records)} recordings"
    could = "could not be converted" if len(records) == 1 else "could be converted; the first"
    listed = [{"number": r.number, "name": r.name, "problem": r.problem} for r in records]
    return NothingConverted(f"{what} {could}: {first.get('detail', '')}", files=listed)
