"""OpenAI's audio API, v1: custom voices.

A consent recording is uploaded first (`/audio/voice_consents`), then a sample of at most 30 s (`/audio/voices`); the
voice has an id, with which `/audio/speech` speaks. https://developers.openai.com/api/docs/guides/custom-voices
"""

from __future__ import annotations

from libs.common.cloud.client import CloudClient

URL = "https://api.openai.com/v1"
LONGEST_REFERENCE = 30.0
LONGEST_CONSENT = 30.0
LARGEST_FILE = 10 * 2**20
MODEL = "gpt-4o-mini-tts"

STATEMENTS = {
    "en": "I am the owner of this voice and I consent to OpenAI using this voice to create a synthetic voice model.",
    "de": "Ich bin der Eigentümer dieser Stimme und bin damit einverstanden, dass OpenAI diese Stimme zur Erstellung "
    "eines synthetischen Stimmmodells verwendet.",
}
"""What a speaker has to read, word by word, in each language."""


class OpenAIVoices:
    """The calls that are used."""

    def __init__(self, *, api_key: str = "", url: str = URL, timeout: float = 120.0) -> None:
        self._api_key = api_key
        self._client = CloudClient("openai", url, self._headers, timeout=timeout, key_setting="OPENAI_API_KEY")

    @property
    def is_configured(self) -> bool:
        return bool(self._api_key)

    async def upload_consent(self, wav: bytes, name: str, language: str) -> str:
        """The id of a consent recording. Raises ProviderUnavailable, ProviderRefused, ProviderFailed."""
        answer = await self._client.post_form(
            "/audio/voice_consents",
            {"name": name, "language": language},
            {"recording": ("consent.wav", wav, "audio/wav")},
        )
        return self._client.text_in(answer, "id")

    async def make_voice(self, sample: bytes, name: str, consent: str) -> str:
        """The id of a voice that sounds like the sample, with the consent of that id. Raises as `upload_consent`."""
        answer = await self._client.post_form(
            "/audio/voices",
            {"name": name, "consent": consent},
            {"audio_sample": ("sample.wav", sample, "audio/wav")},
        )
        return self._client.text_in(answer, "id")

    async def speak(self, text: str, voice: str) -> bytes:
        """A WAV file of `text` in the voice of that id. Raises as `upload_consent`."""
        return await self._client.post_json(
            "/audio/speech", {"model": MODEL, "input": text, "voice": {"id": voice}, "response_format": "wav"}
        )

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._api_key}"}
