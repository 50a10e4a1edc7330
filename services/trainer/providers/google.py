"""How does Google make a voice? Instant custom voice: a key of ten seconds of speech and a recorded consent."""

from __future__ import annotations

from typing import Any

from libs.common.cloud import google
from libs.common.events import TrainVoice
from libs.common.paths import Paths
from libs.common.work import Work
from services.trainer.providers.cloud import CloudProvider
from services.trainer.settings import TrainerSettings


class GoogleProvider(CloudProvider):
    """Off until GOOGLE_TTS_API_KEY or GOOGLE_TTS_TOKEN_FILE is set."""

    name = "google"
    api = "texttospeech v1beta1"
    statements = google.STATEMENTS
    longest_reference = google.LONGEST_REFERENCE
    longest_consent = google.LONGEST_CONSENT
    readiness_hint = (
        "Set GOOGLE_TTS_API_KEY, or GOOGLE_TTS_TOKEN_FILE and GOOGLE_TTS_PROJECT, for the trainer; Google allows "
        "custom voices for each project on request."
    )

    def __init__(self, settings: TrainerSettings, paths: Paths) -> None:
        super().__init__(paths)
        self._voices = google.GoogleVoices(
            api_key=settings.google_tts_api_key.get_secret_value() if settings.google_tts_api_key else "",
            token_file=settings.google_tts_token_file,
            project=settings.google_tts_project,
            url=settings.google_tts_url,
            timeout=settings.cloud_timeout.total_seconds(),
        )

    @property
    def is_configured(self) -> bool:
        return self._voices.is_configured

    async def make(self, work: Work[TrainVoice], reference: bytes, consent: bytes, language: str) -> dict[str, Any]:
        return {"voice_cloning_key": await self._voices.make_key(reference, consent, language)}

    async def speak(self, text: str, remote: dict[str, Any]) -> bytes:
        return await self._voices.speak(text, remote["voice_cloning_key"], remote["language"])
