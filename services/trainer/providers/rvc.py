"""How does RVC make a voice? The lite and the RVC networks learn from what the preprocessor prepared."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.errors import InvalidInput
from libs.common.events import (
    BuildIndex,
    EvaluateVoice,
    IndexBuilt,
    ManifestRef,
    PublishVoice,
    TrainVoice,
    VoiceEvaluated,
    VoiceTrained,
)
from libs.common.manifests import Manifest
from libs.common.paths import Paths, VoiceVersion
from libs.common.processes import in_child
from libs.common.work import Done, Work
from services.trainer import clips, evaluation, indexing, training, voice_files
from services.trainer.providers.protocol import Readiness
from services.trainer.results import Results
from services.trainer.settings import TrainerSettings

WEIGHTS, NATIVE, INDEX = "voice.pth", "voice.safetensors", "voice.index"
QUALITY, PLAN = "quality.json", "run.json"
RUN_FILES = (WEIGHTS, PLAN, "metrics.jsonl", "train.log")
TRIED_OUT = 3


class RvcProvider:
    """Voices that convert recordings. Index and evaluation are steps of their own, which no other provider has."""

    name = "rvc"

    def __init__(self, settings: TrainerSettings, paths: Paths) -> None:
        self._settings = settings
        self._paths = paths
        self._results = Results(paths)

    async def readiness(self) -> Readiness:
        """Built in: all that it needs was installed with the trainer."""
        return Readiness()

    async def train(self, work: Work[TrainVoice]) -> Done:
        """Trains in a child process on exactly what the preprocessor committed."""
        prepared = await self._results.load(work.command.prepared)
        folder = await self._results.check(prepared)
        filelist = await self._results.file(prepared, "filelist.txt")
        encoder = prepared.data["encoder"].get("checksum")
        result = await training.run(work, folder, filelist, self._settings, encoder=encoder)
        files = [path for name in RUN_FILES if (path := work.folder / name).is_file()]
        return Done(
            event=VoiceTrained,
            fields={
                "voice": work.command.voice,
                "steps": result["steps"],
                "epochs": result["epochs"],
                "losses": result["losses"],
                "seconds": round(result["seconds"], 2),
            },
            files=files,
            data={"result": result | {"voice": WEIGHTS}, "options": work.command.options.model_dump(mode="json")},
        )

    async def index(self, work: Work[BuildIndex]) -> Done:
        """Builds the retrieval index of the prepared features."""
        prepared = await self._results.load(work.command.prepared)
        target = work.folder / INDEX
        features = await self._features(prepared)
        async with work.time_limit(self._settings.step_timeout_index):
            built = await work.unless_stopped(in_child(indexing.build, features, target, work.command.index_mode))
        return Done(
            event=IndexBuilt,
            fields={"voice": work.command.voice, "vectors": built["rows"]},
            files=[target],
            data={"vectors": built["rows"], "retrieval": built["card"]},
        )

    async def evaluate(self, work: Work[EvaluateVoice]) -> Done:
        """Tries the voice, in our own form, on held-out clips; a silent one fails here, whatever its losses were."""
        command = work.command
        prepared, trained, indexed = [
            await self._results.load(reference) for reference in (command.prepared, command.trained, command.indexed)
        ]
        spoken = await self._spoken(prepared, trained)
        weights, index = await self._results.file(trained, WEIGHTS), await self._results.file(indexed, INDEX)
        native = work.folder / NATIVE
        trial = self._trial(prepared, weights, index, spoken, native)
        async with work.time_limit(self._settings.step_timeout_evaluate):
            quality = await work.unless_stopped(in_child(evaluation.try_voice, trial))
        target = work.folder / QUALITY
        manifests.write_whole(target, json.dumps(quality, indent=1, sort_keys=True).encode())
        numbers = {name: value for name, value in quality.items() if not isinstance(value, str | dict)}
        return Done(
            event=VoiceEvaluated,
            fields={"voice": command.voice, "quality": numbers},
            files=[target, native],
            data={"quality": quality},
        )

    async def package(self, work: Work[PublishVoice], version: VoiceVersion) -> dict[str, Any]:
        """Weights in RVC's form and in ours, index and card."""
        command = work.command
        references = (command.prepared, command.trained, *_of_rvc(command))
        prepared, trained, indexed, evaluated = [await self._results.load(reference) for reference in references]
        weights, index = await self._results.file(trained, WEIGHTS), await self._results.file(indexed, INDEX)
        card = await asyncio.to_thread(self._card, command, prepared, trained, indexed, evaluated, weights, index)
        native = None
        if any(relative.endswith(f"/{NATIVE}") for relative in evaluated.files):  # an older evaluation left none
            native = await self._results.file(evaluated, NATIVE)
            card["files"] = [await asyncio.to_thread(voice_files.file_facts, version.native.name, native)]
        await asyncio.to_thread(voice_files.assemble, version, weights, index, card, native=native)
        return card

    async def try_out(self, work: Work[PublishVoice], version: VoiceVersion) -> None:
        """Converts a little of each speaker's own held-out speech."""
        prepared = await self._results.load(work.command.prepared)
        trained = await self._results.load(work.command.trained)
        spoken = await self._spoken(prepared, trained, TRIED_OUT)
        served = version.native if version.native.is_file() else version.weights
        trial = self._trial(prepared, served, version.index, spoken)
        await in_child(evaluation.try_voice, trial, False)

    # -- what earlier steps made --------------------------------------------------------------------------------------

    async def _features(self, prepared: Manifest) -> list[Path]:
        folder = f"/3_feature{prepared.data['width']}/"
        return await self._results.whole(prepared, [relative for relative in prepared.files if folder in relative])

    async def _spoken(
        self, prepared: Manifest, trained: Manifest, most: int | None = None
    ) -> tuple[evaluation.Spoken, ...]:
        """16 kHz pieces of each speaker's recordings that the training held out, and others; `most`: so many of the
        first, and none of the others."""
        return tuple(
            [
                evaluation.Spoken(
                    found.speaker,
                    tuple(await self._results.whole(prepared, found.tried[:most])),
                    () if most else tuple(await self._results.whole(prepared, found.others)),
                )
                for found in clips.chosen(prepared.files, trained.data["result"], prepared.data.get("recordings", ()))
            ]
        )

    def _trial(
        self,
        prepared: Manifest,
        weights: Path,
        index: Path,
        spoken: tuple[evaluation.Spoken, ...],
        native: Path | None = None,
    ) -> evaluation.Trial:
        return evaluation.Trial(
            weights=weights,
            index=index,
            spoken=spoken,
            seconds=self._settings.evaluation_seconds,
            hubert=self._paths.hubert,
            rmvpe=self._paths.rmvpe,
            f0_method=prepared.data["f0_method"],
            encoder=prepared.data["encoder"],
            native=native,
        )

    def _card(
        self,
        command: PublishVoice,
        prepared: Manifest,
        trained: Manifest,
        indexed: Manifest,
        evaluated: Manifest,
        weights: Path,
        index: Path,
    ) -> dict[str, Any]:
        """The voice card: what it is, from what it was made, how good it is, and the checksums of its files."""
        result = trained.data["result"]
        voice = self._paths.voice(command.voice)
        indexed_ref, evaluated_ref = _of_rvc(command)
        return {
            "format": 1,
            "name": command.display_name,
            "voice": command.voice,
            "preset": result["preset"],
            "sample_rate": result["sample_rate"],
            "content_width": result["content_width"],
            "content_encoder": prepared.data["encoder"],
            "f0_method": prepared.data["f0_method"],
            "weights": voice_files.file_facts(voice.weights.name, weights),
            "index": voice_files.file_facts(voice.index.name, index),
            "retrieval": indexed.data.get("retrieval", {"mode": "rvc"}),
            "quality": evaluated.data["quality"],
            "training": {
                **{k: result[k] for k in ("steps", "epochs", "losses", "seconds", "ended", "best_step", "device")},
                "adversarial_steps": result.get("adversarial_steps", 0),
                "bases": result.get("bases", {}),
                **({"speakers": result["speakers"]} if "speakers" in result else {}),
                "options": trained.data["options"],
            },
            "lineage": {
                "job_id": command.job_id,
                "dataset": command.dataset,
                "recordings": sorted(item.sha256 for item in command.inputs),
                "seconds_of_speech": prepared.data["seconds"],
                "manifests": {
                    "preprocess": command.prepared.sha256,
                    "train": command.trained.sha256,
                    "index": indexed_ref.sha256,
                    "evaluate": evaluated_ref.sha256,
                },
            },
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _of_rvc(command: PublishVoice) -> tuple[ManifestRef, ManifestRef]:
    """What the index and evaluation steps made. Raises InvalidInput when the command does not say."""
    if command.indexed is None or command.evaluated is None:
        raise InvalidInput("a voice that converts needs its index and its evaluation", field="indexed")
    return command.indexed, command.evaluated
