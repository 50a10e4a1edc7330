"""What do providers have in common that make voices elsewhere? A reference and a recorded consent go out, a name comes
back, and that name is the voice.

What was got is written down at once, so that a repeated command asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import unicodedata
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from libs.common import manifests
from libs.common.errors import InvalidInput, ModelValidationFailed, RecordingTooLong, RecordingTooShort
from libs.common.events import CheckSpeech, PublishVoice, SpeechChecked, SpokenClip, TrainVoice, VoiceTrained
from libs.common.paths import Paths, VoiceVersion
from libs.common.processes import in_child
from libs.common.providers import PROVIDERS
from libs.common.work import Done, Work
from services.trainer import voice_files
from services.trainer.providers import passages
from services.trainer.providers.protocol import Readiness
from services.trainer.results import Results

CHECKED, REMOTE = "checked.json", "remote.json"
SHORTEST_CONSENT = 1.0
SAMPLE_RATE = 24_000
AUDIBLE = 1e-3


class CloudProvider(ABC):
    """Google's and OpenAI's custom voices; each says only what it asks for and how it speaks."""

    name: str
    api: str
    statements: dict[str, str]
    longest_reference: float
    longest_consent: float
    readiness_hint: str

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._results = Results(paths)

    @property
    @abstractmethod
    def is_configured(self) -> bool:
        """Whether there is a key."""

    @abstractmethod
    async def make(self, work: Work[TrainVoice], reference: bytes, consent: bytes, language: str) -> dict[str, Any]:
        """What names the voice there, for `remote.json`."""

    @abstractmethod
    async def speak(self, text: str, remote: dict[str, Any]) -> bytes:
        """A sound file of `text` in the voice that `make` made."""

    async def readiness(self) -> Readiness:
        return Readiness() if self.is_configured else Readiness(("its key is not configured",), self.readiness_hint)

    # -- check --------------------------------------------------------------------------------------------------------

    async def check(self, work: Work[CheckSpeech]) -> Done:
        """The consent says what it must, and there is a passage to send."""
        command, options = work.command, work.command.options
        language = self._language(options.language)
        consent = next((clip for clip in command.clips if clip.sample_id == options.consent_recording), None)
        if consent is None:
            raise InvalidInput(
                f"{self.name} needs a recorded consent, and the dataset does not hold the one that is named",
                field="options.consent_recording",
            )
        self._check_consent(consent, self.statements[language])
        clips = [clip for clip in command.clips if clip is not consent]
        if not clips:
            raise RecordingTooShort("the dataset holds nothing but the consent", field="options.consent_recording")
        chosen = clips[passages.best([clip.seconds for clip in clips], self.longest_reference)]
        for clip in (chosen, consent):
            if not self._wav(command.dataset, clip).is_file():
                raise InvalidInput(f"the recording {clip.name!r} is not in the dataset's folder", field="dataset_id")
        seconds = sum(clip.seconds for clip in clips)
        result = {
            "language": language,
            "consent": consent.model_dump(),
            "reference": chosen.model_dump(),
            "seconds": seconds,
        }
        target = work.folder / CHECKED
        await asyncio.to_thread(manifests.write_whole, target, json.dumps(result, indent=1).encode())
        return Done(
            event=SpeechChecked,
            fields={
                "dataset": command.dataset,
                "clips": len(clips),
                "refused": 0,
                "seconds": round(seconds, 2),
                "language": language,
            },
            files=[target],
            data=result,
        )

    def _language(self, asked: str | None) -> str:
        if asked not in self.statements:
            raise InvalidInput(
                f"{self.name} does not speak {asked!r}; it knows {', '.join(self.statements)}", field="options.language"
            )
        return asked

    def _check_consent(self, consent: SpokenClip, statement: str) -> None:
        """Raises RecordingTooShort, RecordingTooLong, or InvalidInput with the words that have to be read."""
        field = "options.consent_recording"
        advice = (f"Record the speaker reading: “{statement}”", "Write the same words down as its transcript.")
        if consent.seconds < SHORTEST_CONSENT:
            raise RecordingTooShort(f"the consent recording has {consent.seconds:.1f} s", field=field, actions=advice)
        if consent.seconds > self.longest_consent:
            raise RecordingTooLong(
                f"the consent recording has {consent.seconds:.1f} s; {self.longest_consent:g} s are allowed",
                field=field,
                actions=advice,
            )
        if _words(consent.transcript) != _words(statement):
            said = "has no transcript" if not consent.transcript.strip() else "does not say the consent statement"
            raise InvalidInput(
                f"the consent recording {consent.name!r} {said}: {self.name} takes its own words alone",
                field=field,
                actions=advice,
                statement=statement,
            )

    # -- train --------------------------------------------------------------------------------------------------------

    async def train(self, work: Work[TrainVoice]) -> Done:
        """Sends reference and consent, unless an earlier attempt was answered already."""
        begun = time.monotonic()
        checked = await self._results.load(work.command.prepared)
        remote = await asyncio.to_thread(self.earlier, work, REMOTE)
        if remote is None:
            work.report(0.1, message="sending the reference")
            reference = await self._sound(work, checked.data["reference"], self.longest_reference)
            consent = await self._sound(work, checked.data["consent"], self.longest_consent)
            work.mark("sounds read")
            made = await work.unless_stopped(self.make(work, reference, consent, checked.data["language"]))
            remote = {"provider": self.name, "api": self.api, "language": checked.data["language"], **made}
        target = work.folder / REMOTE
        await asyncio.to_thread(self.keep, target, remote)
        work.report(1.0, message="made")
        seconds = time.monotonic() - begun
        return Done(
            event=VoiceTrained,
            fields={
                "voice": work.command.voice,
                "steps": 1,
                "epochs": 1,
                "losses": {},
                "seconds": round(seconds, 2),
            },
            files=[target],
            data={"seconds": seconds, "options": work.command.options.model_dump(mode="json")},
        )

    @staticmethod
    def earlier(work: Work[TrainVoice], name: str) -> dict[str, Any] | None:
        """What an earlier attempt of the same job was given under that name."""
        for folder in (work.folder, *work.earlier_folders):
            try:
                found = json.loads((folder / name).read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            if isinstance(found, dict):
                return found
        return None

    @staticmethod
    def keep(target: Path, value: dict[str, Any]) -> None:
        """Writes it whole, for the owner alone: who has it can speak in the voice."""
        manifests.write_whole(target, json.dumps(value, indent=1).encode())
        target.chmod(0o600)

    async def _sound(self, work: Work[TrainVoice], clip: dict[str, Any], longest: float) -> bytes:
        wav = self._wav(work.command.experiment, SpokenClip.model_validate(clip))
        return await work.unless_stopped(in_child(passages.sent, wav, longest, SAMPLE_RATE))

    def _wav(self, dataset: str, clip: SpokenClip) -> Path:
        return self._paths.uploads(dataset).wav(clip.sha256)

    # -- package ------------------------------------------------------------------------------------------------------

    async def package(self, work: Work[PublishVoice], version: VoiceVersion) -> dict[str, Any]:
        """The card and what names the voice there; the card does not repeat it."""
        command = work.command
        checked = await self._results.load(command.prepared)
        trained = await self._results.load(command.trained)
        remote = await self._results.file(trained, REMOTE)
        languages = PROVIDERS[self.name].languages
        card: dict[str, Any] = {
            "format": 1,
            "kind": self.name,
            "name": command.display_name,
            "voice": command.voice,
            "preset": command.preset,
            "sample_rate": SAMPLE_RATE,
            "language": checked.data["language"],
            "languages": list(languages),
            "weights": None,
            "index": None,
            "files": [voice_files.file_facts(REMOTE, remote)],
            "api": self.api,
            "consent": {
                "recording": checked.data["consent"]["sha256"],
                "statement": self.statements[checked.data["language"]],
            },
            "quality": {},
            "training": {"seconds": trained.data["seconds"], "options": trained.data["options"]},
            "lineage": {
                "job_id": command.job_id,
                "dataset": command.dataset,
                "recordings": [checked.data["reference"]["sha256"]],
                "seconds_of_speech": checked.data["seconds"],
                "manifests": {"preprocess": command.prepared.sha256, "train": command.trained.sha256},
            },
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        await asyncio.to_thread(voice_files.assemble, version, None, None, card, [remote])
        return card

    async def try_out(self, work: Work[PublishVoice], version: VoiceVersion) -> None:
        """Has the provider say a few words, and listens whether there is anything."""
        remote = json.loads(await asyncio.to_thread(version.file(REMOTE).read_text))
        sound = await self.speak(self.statements[remote["language"]], remote)
        seconds, peak = await in_child(passages.loudness, sound)
        if seconds < SHORTEST_CONSENT or peak < AUDIBLE:
            raise ModelValidationFailed(f"{self.name} made {seconds:.1f} s with a peak of {peak:.4f}: nothing to hear")


def _words(text: str) -> list[str]:
    """The words alone: capitals, punctuation and the form of accents are not heard."""
    return re.findall(r"\w+", unicodedata.normalize("NFC", text).casefold())
