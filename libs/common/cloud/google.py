"""Google Cloud Text-to-Speech, v1beta1: instant custom voice (Chirp 3).

`voices:generateVoiceCloningKey` makes a key of a few seconds of speech and a recorded consent. The key is the voice:
nothing is kept there, and it goes with every `text:synthesize`.
https://cloud.google.com/text-to-speech/docs/chirp3-instant-custom-voice
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from libs.common.cloud.client import CloudClient
from libs.common.errors import ProviderFailed, ProviderUnavailable

URL = "https://texttospeech.googleapis.com"
LONGEST_REFERENCE = 10.0
LONGEST_CONSENT = 10.0
SAMPLE_RATE = 24_000

_ENGLISH = "I am the owner of this voice and I consent to Google using this voice to create a synthetic voice model."
_FRENCH = (
    "Je suis le propriétaire de cette voix et j'autorise Google à utiliser cette voix pour créer un modèle de voix "
    "synthétique."
)
_GERMAN = (
    "Ich bin der Eigentümer dieser Stimme und bin damit einverstanden, dass Google diese Stimme zur Erstellung eines "
    "synthetischen Stimmmodells verwendet."
)
STATEMENTS = {
    **dict.fromkeys(("en-US", "en-GB", "en-AU", "en-IN"), _ENGLISH),
    **dict.fromkeys(("fr-FR", "fr-CA"), _FRENCH),
    "de-DE": _GERMAN,
}
"""What a speaker has to read, word by word, in each language."""


class GoogleVoices:
    """The calls that are used. An API key, or a file with an access token, which is read anew each time."""

    def __init__(
        self,
        *,
        api_key: str = "",
        token_file: Path | None = None,
        project: str = "",
        url: str = URL,
        timeout: float = 120.0,
    ) -> None:
        self._api_key = api_key
        self._token_file = token_file
        self._project = project
        setting = "GOOGLE_TTS_TOKEN_FILE" if token_file else "GOOGLE_TTS_API_KEY"
        self._client = CloudClient("google", url, self._headers, timeout=timeout, key_setting=setting)

    @property
    def is_configured(self) -> bool:
        return bool(self._api_key or self._token_file)

    async def make_key(self, reference: bytes, consent: bytes, language: str) -> str:
        """The voice cloning key of WAV files with speech and with the consent statement, 10 s each at most.

        Raises ProviderUnavailable, ProviderRefused, ProviderFailed.
        """
        answer = await self._client.post_json(
            "/v1beta1/voices:generateVoiceCloningKey",
            {
                "reference_audio": _audio(reference),
                "voice_talent_consent": _audio(consent),
                "consent_script": STATEMENTS[language],
                "language_code": language,
            },
        )
        return self._client.text_in(answer, "voiceCloningKey")

    async def speak(self, text: str, key: str, language: str) -> bytes:
        """A WAV file, 24 kHz, of `text` in the voice of `key`. Raises as `make_key`."""
        answer = await self._client.post_json(
            "/v1beta1/text:synthesize",
            {
                "input": {"text": text},
                "voice": {"language_code": language, "voice_clone": {"voice_cloning_key": key}},
                "audioConfig": {"audioEncoding": "LINEAR16", "sampleRateHertz": SAMPLE_RATE},
            },
        )
        try:
            return base64.b64decode(self._client.text_in(answer, "audioContent"), validate=True)
        except binascii.Error as error:
            raise ProviderFailed("google answered with sound that is not base64") from error

    def _headers(self) -> dict[str, str]:
        project = {"x-goog-user-project": self._project} if self._project else {}
        if self._token_file is None:
            return {"x-goog-api-key": self._api_key} | project
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ProviderUnavailable(
                "the file of GOOGLE_TTS_TOKEN_FILE cannot be read", actions=("Put an access token there.",)
            ) from error
        return {"Authorization": f"Bearer {token}"} | project


def _audio(wav: bytes) -> dict[str, object]:
    return {"audio_config": {"audio_encoding": "LINEAR16"}, "content": base64.b64encode(wav).decode("ascii")}
