"""What does ingest listen to? `ValidateDataset`."""

from __future__ import annotations

from libs.common.events import DatasetValidated, ValidateDataset
from libs.common.paths import Paths
from libs.common.work import Done, Work
from services.ingest.copies import Copies
from services.ingest.examiners import Examiners
from services.ingest.validation import validate, write_result


class Handlers:
    """The service's commands."""

    def __init__(self, paths: Paths, examiners: Examiners, copies: Copies) -> None:
        self._paths = paths
        self._examiners = examiners
        self._copies = copies

    async def on_validate_dataset(self, work: Work[ValidateDataset]) -> Done:
        """Checks that a dataset can be trained on, and collects what people should know about its recordings."""
        command = work.command
        result = await validate(
            command.dataset,
            command.inputs,
            command.min_seconds,
            paths=self._paths,
            examiners=self._examiners,
            progress=work.report,
            check=work.check,
        )
        for recording in command.inputs:
            self._copies.add(command.dataset, recording.sha256, recording.extension)
        file = await write_result(work.folder, result)
        return Done(event=DatasetValidated, fields=result.event_fields(), files=[file])
