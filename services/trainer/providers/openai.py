"""How does OpenAI make a voice? A consent recording is uploaded, then a sample; the voice keeps its id."""

from __future__ import annotations

import asyncio
from typing import Any

from libs.common.cloud import openai
from libs.common.errors import RecordingTooLong
from libs.common.events import TrainVoice
from libs.common.paths import Paths
from libs.common.work import Work
from services.trainer.providers.cloud import CloudProvider
from services.trainer.settings import TrainerSettings

CONSENT = "consent.json"


class OpenAIProvider(CloudProvider):
    """Off until OPENAI_API_KEY is set."""

    name = "openai"
    api = "audio v1"
    statements = openai.STATEMENTS
    longest_reference = openai.LONGEST_REFERENCE
    longest_consent = openai.LONGEST_CONSENT
    readiness_hint = "Set OPENAI_API_KEY for the trainer; OpenAI allows custom voices for each organisation on request."

    def __init__(self, settings: TrainerSettings, paths: Paths) -> None:
        super().__init__(paths)
        self._voices = openai.OpenAIVoices(
            api_key=settings.openai_api_key.get_secret_value() if settings.openai_api_key else "",
            url=settings.openai_url,
            timeout=settings.cloud_timeout.total_seconds(),
        )

    @property
    def is_configured(self) -> bool:
        return self._voices.is_configured

    async def make(self, work: Work[TrainVoice], reference: bytes, consent: bytes, language: str) -> dict[str, Any]:
        """A consent that an earlier attempt uploaded is used again: each upload would be another one there."""
        for sound in (reference, consent):
            if len(sound) > openai.LARGEST_FILE:
                raise RecordingTooLong(f"openai takes files of {openai.LARGEST_FILE // 2**20} MiB at most")
        label = f"{work.command.voice} {work.command.job_id}"
        kept = await asyncio.to_thread(self.earlier, work, CONSENT)
        if kept is None:
            kept = {"consent_id": await self._voices.upload_consent(consent, label, language)}
            await asyncio.to_thread(self.keep, work.folder / CONSENT, kept)
            work.mark("consent uploaded")
        voice = await self._voices.make_voice(reference, label, str(kept["consent_id"]))
        return {"voice_id": voice, "consent_id": kept["consent_id"]}

    async def speak(self, text: str, remote: dict[str, Any]) -> bytes:
        return await self._voices.speak(text, remote["voice_id"])
