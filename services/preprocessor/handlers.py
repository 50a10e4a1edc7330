"""What does the preprocessor listen to? `PrepareDataset`."""

from __future__ import annotations

import asyncio

from libs.common import manifests
from libs.common.events import DatasetPrepared, PrepareDataset
from libs.common.logs import get_logger
from libs.common.paths import Paths
from libs.common.work import Done, Work
from services.preprocessor import prepared
from services.preprocessor.preparation import Preparation, plan_of
from services.preprocessor.settings import PreprocessorSettings

log = get_logger("preprocessor")


class Handlers:
    def __init__(self, settings: PreprocessorSettings, paths: Paths) -> None:
        self._settings = settings
        self._paths = paths

    async def on_prepare_dataset(self, work: Work[PrepareDataset]) -> Done:
        """Prepares all recordings side by side, or finds that the same was done before."""
        async with work.time_limit(self._settings.step_timeout_preprocess):
            return await self._prepare(work)

    async def _prepare(self, work: Work[PrepareDataset]) -> Done:
        command = work.command
        plan = await work.unless_stopped(plan_of(command, self._paths, self._settings.preprocess_precision))
        earlier = await asyncio.to_thread(prepared.find, self._paths, command.experiment, plan.fingerprint)
        if earlier is not None:
            log.info("preprocessor.reused", manifest=earlier.folder)
            fields = dict((earlier.event or {}).get("fields", {})) | {"reused": True}
            return Done(
                event=DatasetPrepared,
                fields=fields,
                entries=earlier.files,
                data=earlier.data,
                fingerprint=plan.fingerprint,
                folder=self._paths.in_data(earlier.folder),
            )
        result = await Preparation(plan, work, processes=self._settings.preprocess_processes).run()
        return Done(
            event=DatasetPrepared,
            fields=result.fields,
            files=result.files,
            data=result.data,
            fingerprint=plan.fingerprint,
        )

    async def show_prepared(self, command: PrepareDataset, manifest: manifests.Manifest, revision: int) -> None:
        """After the commit: the experiment's visible folders become links to what the manifest names."""
        await asyncio.to_thread(prepared.show, self._paths, command.experiment, manifest, revision)
