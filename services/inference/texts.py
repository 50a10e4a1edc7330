"""How are many texts said, one after the other? Each is done, failed alone, or still to do.

Between two sentences the voice says what somebody waits for: a job takes a turn for each piece of a text.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Protocol

import numpy as np
from pydantic import ValidationError

from libs.common.errors import (
    NothingSaid,
    PlatformError,
    PoisonCommand,
    ProviderUnavailable,
    StorageFull,
    WorkFailed,
)
from libs.common.events import SayTexts, TextInput
from libs.common.invalid import first_at_fault
from libs.common.logs import get_logger
from libs.common.manifests import sha256_of, write_whole
from libs.voice.xtts.guards import Wave
from services.inference.counting import SPEECH, counted
from services.inference.job_files import DEATHS, FileRecord, JobFiles
from services.inference.queueing import ConversionQueue
from services.inference.schemas import SpeechRequest
from services.inference.speech import Speaking, Speech
from services.inference.speech_sound import rate_of, whole_file

log = get_logger("speech.jobs")


class Report(Protocol):
    """Tells how far the step is, as `Work.report`."""

    def __call__(self, fraction: float, **fields: Any) -> None: ...


async def say_all(
    command: SayTexts,
    files: JobFiles,
    speaking: Speaking,
    queue: ConversionQueue,
    *,
    report: Report,
    mark: Callable[[str], None],
) -> list[FileRecord]:
    """A record for every text, at least one of them with a sound. What is finished when it is cancelled stays.

    Raises NothingSaid when every text failed, ProviderUnavailable when nothing here can speak, StorageFull.
    """
    total = len(command.texts)
    length = sum(len(wanted.text) for wanted in command.texts) or 1
    records: list[FileRecord] = []
    behind = 0
    for wanted in command.texts:
        record = await asyncio.to_thread(files.known, wanted.number, command.attempt)
        if record is None:

            def tell(share: float, wanted: TextInput = wanted, behind: int = behind) -> None:
                fraction = (behind + share * len(wanted.text)) / length
                report(fraction, done=len(records), total=total, message=wanted.name)

            tell(0.0)
            record = await _say_one(command, wanted, files, speaking, queue, tell, mark)
        records.append(record)
        behind += len(wanted.text)
    report(1.0, done=total, total=total)
    if all(record.sound is None for record in records):
        raise _nothing(records)
    return records


async def _say_one(
    command: SayTexts,
    wanted: TextInput,
    files: JobFiles,
    speaking: Speaking,
    queue: ConversionQueue,
    tell: Callable[[float], None],
    mark: Callable[[str], None],
) -> FileRecord:
    if files.deaths(wanted.number) >= DEATHS:
        problem = PoisonCommand(f"{DEATHS} workers ended while they said {wanted.name!r}")
        return await _keep(files, _failed(files, command, wanted, problem))
    begun = files.own.begun(wanted.number)
    begun.parent.mkdir(parents=True, exist_ok=True)
    begun.touch()
    mark(f"text {wanted.number}")  # from here on a death counts against this text, not against the job
    try:
        record = await _said(command, wanted, files, speaking, queue, tell)
    except StorageFull:
        raise
    except ProviderUnavailable as error:
        if error.field is None:  # no voice at all can speak here
            raise
        record = _failed(files, command, wanted, error)
    except PlatformError as error:
        record = _failed(files, command, wanted, error)
    except OSError:
        raise
    except Exception as error:
        log.error("speech.unexpected", text=wanted.number, error=f"{type(error).__name__}: {error}", exc_info=error)
        record = _failed(files, command, wanted, WorkFailed(f"{type(error).__name__}: {error}"[:500]))
    finally:
        begun.unlink(missing_ok=True)
    return await _keep(files, record)


async def _said(
    command: SayTexts,
    wanted: TextInput,
    files: JobFiles,
    speaking: Speaking,
    queue: ConversionQueue,
    tell: Callable[[float], None],
) -> FileRecord:
    asked = _request(command, wanted)
    # Looked up now, and not when the job was opened: the voice may have a newer version, or be gone.
    speech = await speaking.prepare(asked, longest=len(wanted.text))
    with counted("job", SPEECH) as told:
        waves, computed = await _waves(speaking, speech, queue, tell)
        wave = np.concatenate(waves)
        told.done(len(wave) / speech.sample_rate, computed)
    target = files.own.sound(wanted.number, asked.format.value)
    size, sha256 = await asyncio.to_thread(_write, target, wave, speech, asked)
    return FileRecord(
        number=wanted.number,
        name=wanted.name,
        sound=files.paths.relative(target),
        seconds=round(len(wave) / speech.sample_rate, 3),
        sample_rate=rate_of(speech, asked.format),
        size=size,
        sha256=sha256,
        compute_seconds=round(computed, 3),
        voice_version=speech.version,
        voice_sha256=speech.sha256,
        attempt=command.attempt,
    )


async def _waves(
    speaking: Speaking, speech: Speech, queue: ConversionQueue, tell: Callable[[float], None]
) -> tuple[list[Wave], float]:
    """The sounds of a speech, and the seconds that they took to make, without those of waiting."""
    waves: list[Wave] = []
    computed = 0.0
    async with aclosing(speaking.sounds(speech)) as sounds:
        while True:
            async with queue.turn():
                started = time.perf_counter()
                wave = await anext(sounds, None)
                computed += time.perf_counter() - started
            if wave is None:
                return waves, computed
            waves.append(wave)
            tell(len(waves) / len(speech.parts))


def _request(command: SayTexts, wanted: TextInput) -> SpeechRequest:
    own = {"text": wanted.text, "voice": wanted.voice, "reference": None}
    language = {"language": wanted.language} if wanted.language else {}
    try:
        return SpeechRequest.model_validate(command.settings | own | language)
    except ValidationError as error:
        raise first_at_fault(error) from None


def _write(target: Any, wave: Wave, speech: Speech, asked: SpeechRequest) -> tuple[int, str]:
    write_whole(target, whole_file(wave, speech, asked.format))
    return target.stat().st_size, sha256_of(target)


def _failed(files: JobFiles, command: SayTexts, wanted: TextInput, error: PlatformError) -> FileRecord:
    log.info("speech.text_failed", text=wanted.number, code=error.code, detail=error.detail)
    problem = files.paths.places.hidden(error.problem())
    return FileRecord(number=wanted.number, name=wanted.name, attempt=command.attempt, problem=problem)


def _keep(files: JobFiles, record: FileRecord) -> Awaitable[FileRecord]:
    return asyncio.to_thread(files.keep, record)


def _nothing(records: list[FileRecord]) -> NothingSaid:
    first = records[0].problem or {}
    what = "the text" if len(records) == 1 else f"none of the {len(records)} texts"
    could = "could not be said" if len(records) == 1 else "could be said; the first"
    listed = [{"number": r.number, "name": r.name, "problem": r.problem} for r in records]
    return NothingSaid(f"{what} {could}: {first.get('detail', '')}", files=listed)
