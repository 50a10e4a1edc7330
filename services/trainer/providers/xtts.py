"""How does XTTS make a voice? Clips are looked at here; the network learns in a process with a Python of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import wave
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.errors import (
    DatasetEmpty,
    DatasetTooShort,
    InvalidInput,
    WorkFailed,
)
from libs.common.events import CheckSpeech, PublishVoice, SpeechChecked, TrainVoice, VoiceTrained
from libs.common.paths import Paths, VoiceVersion
from libs.common.processes import in_child
from libs.common.providers import PROVIDERS, XTTS_LANGUAGES
from libs.common.work import Done, Work
from libs.voice import transcribing
from libs.voice.child import TrainingChild
from libs.voice.xtts.base import LICENCE, BaseModel, missing_packages
from libs.voice.xtts.speech import FEWEST_CLIPS, LONGEST_SECONDS, PARTS, Clip, Looked, look
from libs.voice.xtts.vocabulary import read_vocabulary
from libs.voice.xtts.words import words_in
from services.trainer import training, voice_files
from services.trainer.providers.long_clips import pieces
from services.trainer.providers.protocol import Readiness
from services.trainer.results import Results
from services.trainer.settings import TrainerSettings

CHECKED, RESULT = "checked.json", "result.json"
HEARD, TRANSCRIPTS = "heard.json", "transcripts.csv"
"""What a machine heard; and the same as `metadata.csv` takes it, for a person to read and mend."""
RUN_FILES = (RESULT, "metrics.jsonl", "train.log")
MOST_NAMED = 50
PROBE_SECONDS = 60.0
ROOT = Path(__file__).resolve().parents[3]


class XttsProvider:
    """Off until the library is installed, the base model is there, and its licence was accepted."""

    name = "xtts"

    def __init__(self, settings: TrainerSettings, paths: Paths) -> None:
        self._settings = settings
        self._paths = paths
        self._results = Results(paths)
        assert settings.xtts_path is not None
        self._base = BaseModel(settings.xtts_path)
        self._python = str(settings.xtts_python or sys.executable)

    async def readiness(self) -> Readiness:
        """Library, base model, licence."""
        missing = [f"the package {name}" for name in await self._missing_packages()]
        how = ["Run scripts/install-xtts, and set XTTS_PYTHON as it says."] if missing else []
        if files := self._base.missing():
            missing.append(f"the base model at XTTS_PATH ({', '.join(files)})")
            how.append("Run scripts/fetch-assets xtts, or point XTTS_PATH to a folder that has them.")
        if self._settings.xtts_licence_accepted != LICENCE:
            missing.append(f"the licence of the base model is not accepted (XTTS_LICENCE_ACCEPTED={LICENCE})")
            how.append("Its weights and what they say are for non-commercial use only; read LICENSE.txt beside them.")
        return Readiness(tuple(missing), " ".join(how))

    async def _missing_packages(self) -> list[str]:
        if self._python == sys.executable:
            return missing_packages()
        program = "from libs.voice.xtts.base import missing_packages; print('\\n'.join(missing_packages()))"
        try:
            process = await asyncio.create_subprocess_exec(
                self._python,
                "-c",
                program,
                env=_environment(),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            said, _ = await asyncio.wait_for(process.communicate(), PROBE_SECONDS)
        except (OSError, TimeoutError):
            return ["coqui-tts (XTTS_PYTHON does not start)"]
        return said.decode().split() if process.returncode == 0 else ["coqui-tts (XTTS_PYTHON does not start)"]

    # -- check --------------------------------------------------------------------------------------------------------

    async def check(self, work: Work[CheckSpeech]) -> Done:
        """Every clip is usable or refused with a reason; so are they all together."""
        command, language = work.command, work.command.options.language
        if language not in XTTS_LANGUAGES:
            raise InvalidInput(
                f"XTTS does not speak {language!r}; it knows {', '.join(XTTS_LANGUAGES)}", field="options.language"
            )
        vocabulary = await asyncio.to_thread(read_vocabulary, self._base.vocabulary)
        if language not in vocabulary.languages:
            raise InvalidInput(
                f"the base model at XTTS_PATH has no token for {language!r}; it knows "
                f"{', '.join(sorted(vocabulary.languages))}",
                field="options.language",
            )
        clips = await asyncio.to_thread(self._clips, command)
        heard = await self._heard(work, clips, language) if command.options.transcribe else {}
        clips = [replace(clip, transcript=heard.get(clip.sample_id, clip.transcript)) for clip in clips]
        unread = heard.keys() | {
            clip.sample_id for clip in command.clips if clip.by_machine and clip.transcript.strip()
        }
        lines = [f"{clip.sha256}|{clip.transcript}|{clip.transcript}\n" for clip in clips if clip.sample_id in unread]
        clips, whole = await self._in_parts(work, clips, language)
        looked = _with_reasons(look(clips, language, vocabulary), whole)
        _check_enough(looked, len(clips))
        parts = sorted({clip.wav for clip, _ in looked.usable if clip.wav})
        content = {
            "language": language,
            "seconds": round(looked.seconds, 3),
            "clips": [
                {"sample_id": c.sample_id, "sha256": c.sha256, "name": c.name, "text": text, "seconds": c.seconds}
                | ({"part": True} if c.wav else {})
                for c, text in looked.usable
            ],
            "parts": len(parts),
            "by_machine": sorted(unread & {clip.sample_id for clip, _ in looked.usable}),
            "refused": [refusal.as_dict() for refusal in looked.refused],
        }
        target = work.folder / CHECKED
        await asyncio.to_thread(manifests.write_whole, target, json.dumps(content, indent=1).encode())
        files = [target, *parts]
        if lines:
            files.append(work.folder / TRANSCRIPTS)
            await asyncio.to_thread(manifests.write_whole, files[-1], "".join(lines).encode())
        return Done(
            event=SpeechChecked,
            fields={
                "dataset": command.dataset,
                "clips": len(looked.usable),
                "refused": len(looked.refused),
                "seconds": content["seconds"],
                "language": language,
                "heard": heard,
            },
            files=files,
            data={name: content[name] for name in ("language", "seconds", "refused", "parts", "by_machine")},
        )

    def _clips(self, command: CheckSpeech) -> list[Clip]:
        uploads = self._paths.uploads(command.dataset)
        return [
            Clip(c.sample_id, c.sha256, c.name, c.transcript, _seconds(uploads.wav(c.sha256))) for c in command.clips
        ]

    async def _heard(self, work: Work[CheckSpeech], clips: Sequence[Clip], language: str) -> dict[str, str]:
        """By sample, what a machine hears in the recordings that have no transcript, as far as it hears anything.

        Raises ProviderUnavailable with what that lacks here.
        """
        model = transcribing.check_model(self._settings.whisper_path)
        uploads = self._paths.uploads(work.command.dataset)
        silent = [clip for clip in clips if clip.seconds is not None and not clip.transcript.strip()]
        if not silent:
            return {}
        output = work.folder / HEARD
        child = self._child(
            {
                "task": "transcribe",
                "run": str(work.folder),
                "model": str(model),
                "wavs": [str(uploads.wav(clip.sha256)) for clip in silent],
                "language": language,
                "output": str(output),
            },
            {"threads": self._settings.training_threads},
        )
        await training.follow(work, child)
        texts = json.loads(await asyncio.to_thread(output.read_text))
        return {clip.sample_id: text for clip in silent if (text := texts.get(clip.sha256, "").replace("|", " "))}

    async def _in_parts(
        self, work: Work[CheckSpeech], clips: Sequence[Clip], language: str
    ) -> tuple[list[Clip], dict[str, str]]:
        """The clips, long recordings as their parts where they can be cut; why not, by sample, for those that stay."""
        uploads, folder = self._paths.uploads(work.command.dataset), work.folder / PARTS
        found: list[Clip] = []
        whole: dict[str, str] = {}
        for number, clip in enumerate(clips):
            if clip.seconds is None or clip.seconds <= LONGEST_SECONDS or not clip.transcript.strip():
                found.append(clip)
                continue
            work.report(number / len(clips), message=f"cutting {clip.name}")
            cut = await work.unless_stopped(
                in_child(pieces, uploads.wav(clip.sha256), clip.transcript, language, folder)
            )
            if isinstance(cut, str):
                whole[clip.sample_id] = cut
                found.append(clip)
                continue
            for one in cut:
                name = f"{clip.name} {one.begin:.1f}-{one.end:.1f} s"
                place = folder / f"{one.checksum}.wav"
                found.append(Clip(clip.sample_id, one.checksum, name, one.text, one.seconds, place))
        return found, whole

    # -- train --------------------------------------------------------------------------------------------------------

    async def train(self, work: Work[TrainVoice]) -> Done:
        """Fine-tunes in a child process, going on from the furthest earlier attempt."""
        command = work.command
        checked = await self._results.load(command.prepared)
        await self._results.check(checked)
        child = self._child(
            {
                "task": "train",
                "base": str(self._base.folder),
                "checked": str(await self._results.file(checked, CHECKED)),
                "wavs": str(self._paths.uploads(command.experiment).wavs),
                "run": str(work.folder),
                "earlier": [str(folder) for folder in work.earlier_folders],
            },
            fine_tuning(command, checked.data["language"], self._settings),
        )
        result = await training.follow(work, child)
        await asyncio.to_thread(manifests.write_whole, work.folder / RESULT, json.dumps(result, indent=1).encode())
        kept = [path for name in RUN_FILES if (path := work.folder / name).is_file()]
        return Done(
            event=VoiceTrained,
            fields={
                "voice": command.voice,
                "steps": result["steps"],
                "epochs": result["epochs"],
                "losses": result["losses"],
                "seconds": round(result["seconds"], 2),
            },
            files=[*kept, *(work.folder / name for name in result["files"])],
            data={"result": result, "options": command.options.model_dump(mode="json")},
        )

    def _child(self, inputs: dict[str, Any], config: dict[str, Any]) -> TrainingChild:
        return TrainingChild(
            inputs,
            config,
            command=[self._python, "-m", "libs.voice.xtts.main"],
            environment=_environment(),
            stall=self._settings.training_stall.total_seconds(),
        )

    # -- package ------------------------------------------------------------------------------------------------------

    async def package(self, work: Work[PublishVoice], version: VoiceVersion) -> dict[str, Any]:
        """The slim checkpoint with all that it takes to speak, and the card."""
        command = work.command
        checked = await self._results.load(command.prepared)
        trained = await self._results.load(command.trained)
        result = trained.data["result"]
        weights, *others = [await self._results.file(trained, name) for name in result["files"]]
        by_machine = checked.data.get("by_machine", [])
        if by_machine:
            others.append(await self._results.file(checked, TRANSCRIPTS))
        card: dict[str, Any] = {
            "format": 1,
            "kind": self.name,
            "name": command.display_name,
            "voice": command.voice,
            "preset": command.preset,
            "sample_rate": 24_000,
            "language": checked.data["language"],
            "languages": result["languages"],
            "weights": voice_files.file_facts(version.weights.name, weights),
            "index": None,
            "files": [voice_files.file_facts(path.name, path) for path in others],
            "licence": {"name": LICENCE, "accepted": True, "by": "XTTS_LICENCE_ACCEPTED", "use": "non-commercial"},
            "quality": {"validation_loss": result["best_loss"]},
            "training": {
                **{k: result[k] for k in ("steps", "epochs", "losses", "seconds", "ended", "best_step", "device")},
                "clips": result["clips"],
                "parts": checked.data.get("parts", 0),
                "transcripts": {"by_machine": len(by_machine), "confirmed_by_a_person": not by_machine},
                "refused": [*checked.data["refused"], *result["refused"]][:MOST_NAMED],
                "options": trained.data["options"],
            },
            "lineage": {
                "job_id": command.job_id,
                "dataset": command.dataset,
                "recordings": sorted(item.sha256 for item in command.inputs),
                "reference": result["reference"],
                "seconds_of_speech": checked.data["seconds"],
                "manifests": {"preprocess": command.prepared.sha256, "train": command.trained.sha256},
            },
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        await asyncio.to_thread(voice_files.assemble, version, weights, None, card, others)
        return card

    async def try_out(self, work: Work[PublishVoice], version: VoiceVersion) -> None:
        """Has the packaged voice say a few words, in a process of its own."""
        card = voice_files.read_card(version.card) or {}
        language = str(card.get("language", "en"))
        child = self._child(
            {
                "task": "try",
                "run": str(work.folder),
                "voice": str(version.folder),
                "weights": version.weights.name,
                "text": words_in(language),
                "language": language,
            },
            {},
        )
        await child.start()
        try:
            outcome = await child.wait()
        finally:
            child.kill("its worker stopped waiting")
        if outcome.error is not None:
            raise outcome.error
        if outcome.result is None:
            raise WorkFailed(f"the test sound was not made: the process ended as {outcome.ending}")


def fine_tuning(command: TrainVoice, language: str, settings: TrainerSettings) -> dict[str, Any]:
    """The engine's configuration for what a person asked; what they left open stays the engine's own."""
    options = command.options
    asked = {
        name: getattr(options, name)
        for name in (
            "epochs",
            "batch_size",
            "learning_rate",
            "weight_decay",
            "validation_split",
            "early_stopping_patience",
            "total_steps",
            "seed",
            "best_on_timeout",
        )
    }
    limit = min(options.max_training_seconds, settings.training_timeout.total_seconds())
    return {name: value for name, value in asked.items() if value is not None} | {
        "language": language,
        "accumulation": options.accumulation if options.accumulation != 1 else None,
        "time_limit_seconds": limit,
        "device": settings.training_device,
        "threads": settings.training_threads,
        "checkpoint_every_seconds": settings.xtts_checkpoint_every.total_seconds(),
    }


def _with_reasons(looked: Looked, whole: dict[str, str]) -> Looked:
    """The same, where a recording that is too long says why it was not cut."""
    refused = [
        replace(each, reason=f"{each.reason}; it was not cut here: {whole[each.sample_id]}")
        if each.code == "too_long" and each.sample_id in whole
        else each
        for each in looked.refused
    ]
    return Looked(looked.usable, refused)


def _check_enough(looked: Looked, clips: int) -> None:
    """Raises DatasetEmpty or DatasetTooShort with the reason for each clip that is refused."""
    least = PROVIDERS["xtts"].needs.seconds[0]
    refused = [refusal.as_dict() for refusal in looked.refused]
    named = "; ".join(f"{each['name']}: {each['reason']}" for each in refused[:3])
    if len(looked.usable) < FEWEST_CLIPS:
        raise DatasetEmpty(
            f"{len(looked.usable)} of {clips} clips can be learnt from, {FEWEST_CLIPS} are needed at least. {named}",
            actions=("Mend the clips that are named: text, length, or both.",),
            refused=refused[:MOST_NAMED],
        )
    if looked.seconds < least:
        raise DatasetTooShort(
            f"{looked.seconds:.1f} s of {clips} clips can be learnt from, {least:g} s are needed. {named}",
            actions=("Mend the clips that are named, or upload more.",),
            given_seconds=round(looked.seconds, 3),
            needed_seconds=least,
            refused=refused[:MOST_NAMED],
        )


def _seconds(path: Path) -> float | None:
    """Of the WAV file that ingest made of a recording; None when it cannot be read."""
    try:
        with wave.open(str(path)) as file:
            return float(file.getnframes() / file.getframerate())
    except (OSError, EOFError, wave.Error, ZeroDivisionError):
        return None


def _environment() -> dict[str, str]:
    """This process's own, with the project where another interpreter finds it."""
    there = os.environ.get("PYTHONPATH", "")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), there)))}
