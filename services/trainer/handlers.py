"""What does the trainer listen to? `CheckSpeech`, `TrainVoice`, `BuildIndex`, `EvaluateVoice`, `PublishVoice`.

Who makes the voice, the preset of the job says; how, the provider knows.
"""

from __future__ import annotations

import asyncio

from libs.common.events import BuildIndex, CheckSpeech, EvaluateVoice, PublishVoice, TrainVoice
from libs.common.manifests import Manifest
from libs.common.paths import Paths
from libs.common.providers import provider_of
from libs.common.storage import Storage
from libs.common.work import Done, Work
from services.trainer import visible, voice_files
from services.trainer.providers.choosing import Providers
from services.trainer.settings import TrainerSettings


class Handlers:
    def __init__(self, settings: TrainerSettings, paths: Paths, storage: Storage, providers: Providers) -> None:
        self._settings = settings
        self._paths = paths
        self._storage = storage
        self._providers = providers

    async def on_check_speech(self, work: Work[CheckSpeech]) -> Done:
        """Looks at the clips and texts of a dataset before a voice that speaks is trained on it."""
        provider = await self._providers.speaking(work.command.options.preset)
        async with work.time_limit(self._settings.step_timeout_check):
            return await work.unless_stopped(provider.check(work))

    async def on_train_voice(self, work: Work[TrainVoice]) -> Done:
        provider = await self._providers.usable(work.command.options.preset)
        return await provider.train(work)

    async def show_training(self, command: TrainVoice, manifest: Manifest, revision: int) -> None:
        """After the commit: the experiment's log, curve and checkpoints become links to this run's.

        The checkpoints of a voice that speaks are dropped: what serves is in the result.
        """
        if provider_of(command.options.preset).speaks:
            await asyncio.to_thread(visible.drop_state, self._paths.in_data(manifest.folder))
        await asyncio.to_thread(visible.show_run, self._paths, command.experiment, manifest, revision)

    async def on_build_index(self, work: Work[BuildIndex]) -> Done:
        return await self._providers.rvc.index(work)

    async def on_evaluate_voice(self, work: Work[EvaluateVoice]) -> Done:
        return await self._providers.rvc.evaluate(work)

    async def on_publish_voice(self, work: Work[PublishVoice]) -> Done:
        """Puts a whole version together on the models volume and lets it make a sound from there."""
        provider = await self._providers.usable(work.command.preset)
        version = self._paths.voice(work.command.voice).version_attempt(work.command.job_id, work.token)
        card = await provider.package(work, version)
        work.mark("assembled")
        async with work.time_limit(self._settings.step_timeout_publish):
            await work.unless_stopped(provider.try_out(work, version))
        return voice_files.published(work.folder, version, card)

    async def serve_version(self, command: PublishVoice, manifest: Manifest, revision: int) -> None:
        """After the commit: the version gets its name, its copy in the object store, and is served."""
        voice, card = self._paths.voice(command.voice), manifest.data["card"]
        bucket = self._settings.voice_models_bucket
        await asyncio.to_thread(
            voice_files.publish, voice, self._storage, bucket, command.job_id, manifest.token, card, revision
        )
