"""What does inference listen to? `ConvertRecordings` and `SayTexts`."""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.errors import Cancelled
from libs.common.events import ConvertRecordings, RecordingsConverted, SayTexts, StepFinished, TextsSaid
from libs.common.manifests import FileEntry
from libs.common.paths import Paths
from libs.common.work import Done, Work
from services.inference.job_files import FileRecord, JobFiles
from services.inference.jobs import convert_all
from services.inference.queueing import ConversionQueue
from services.inference.speech import Speaking
from services.inference.texts import say_all
from services.inference.voices import Voices


class Handlers:
    """The service's commands."""

    def __init__(self, paths: Paths, voices: Voices, speaking: Speaking, texts: ConversionQueue) -> None:
        self._paths = paths
        self._voices = voices
        self._speaking = speaking
        self._texts = texts

    async def on_convert_recordings(self, work: Work[ConvertRecordings]) -> Done:
        """Converts what is not converted yet; sounds that an earlier owner of the step finished are kept."""
        command = work.command
        files = JobFiles.of(self._paths, command.job_id, work.folder, work.earlier_folders)
        try:
            records = await asyncio.to_thread(
                convert_all,
                command,
                files,
                self._voices,
                report=work.report,
                mark=work.mark,
                should_stop=lambda: work.should_stop() is not None,
            )
        except Cancelled:
            work.check()  # says whether it was cancelled, preempted, or taken over
            raise
        except asyncio.CancelledError:
            files.nobody_died()  # the worker goes before the thread has come to a place to stop
            raise
        return _done(RecordingsConverted, records, "files", "converted", voice=command.voice)

    async def on_say_texts(self, work: Work[SayTexts]) -> Done:
        """Has voices say what is not said yet; sounds that an earlier owner of the step finished are kept."""
        command = work.command
        files = JobFiles.of(self._paths, command.job_id, work.folder, work.earlier_folders)
        records = await work.unless_stopped(
            say_all(command, files, self._speaking, self._texts, report=work.report, mark=work.mark)
        )
        return _done(TextsSaid, records, "texts", "said")


def _done(event: type[StepFinished], records: list[FileRecord], all_of: str, of_which: str, **fields: Any) -> Done:
    """The end of a step that made a sound of each, told with its counts under the names of `event`."""
    made = [record for record in records if record.sound is not None]
    counts = {all_of: len(records), of_which: len(made), "failed": len(records) - len(made)}
    return Done(
        event=event,
        fields=fields | counts | {"seconds": round(sum(record.seconds for record in made), 3)},
        entries=_entries(records),
        data={"files": [record.model_dump(mode="json") for record in records]},
    )


def _entries(records: list[FileRecord]) -> dict[str, FileEntry]:
    """The files of a manifest, whose checksums are known already."""
    return {r.sound: FileEntry(sha256=r.sha256, size=r.size) for r in records if r.sound is not None}
