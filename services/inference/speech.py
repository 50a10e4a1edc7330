"""What does it take to speak with a published voice? Its card, its vocabulary, files that are what the card says."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from libs.common.errors import InvalidInput, NotFound, ProviderUnavailable, Unavailable, VoiceSampleNotFound
from libs.common.logs import get_logger
from libs.common.manifests import sha256_of
from libs.common.paths import Paths, VoiceVersion
from libs.voice.chain import Conversion
from libs.voice.xtts import saying
from libs.voice.xtts.base import LICENCE, BaseModel
from libs.voice.xtts.guards import RATE, Wave
from libs.voice.xtts.saying import Speaks, Wish
from libs.voice.xtts.text import LIMITS, Sayable, pieces, sayable
from libs.voice.xtts.vocabulary import Vocabulary, read_vocabulary
from services.inference.cards import read_card
from services.inference.schemas import SpeechRequest
from services.inference.settings import InferenceSettings
from services.inference.voices import LoadedVoice, Voices

log = get_logger("speech")

_KEPT = 32


BASE = "xtts-v2"
"""What stands for a version where the base model itself speaks."""


@dataclass(frozen=True)
class _Speaker:
    """Who speaks: the files, what can be said with them, and a recording when its voice is imitated."""

    folder: Path
    weights: str
    sha256: str
    version: str
    vocabulary: Vocabulary
    languages: tuple[str, ...]
    language: str
    reference: str = ""


@dataclass(frozen=True)
class Speech:
    """What is going to be said: everything that can be refused was."""

    wish: Wish
    parts: list[str]
    text: Sayable
    version: str
    sha256: str
    through: LoadedVoice | None
    conversion: Conversion | None

    @property
    def sample_rate(self) -> int:
        """Hz of what `Speaking.sounds` yields."""
        return RATE if self.through is None else self.through.converter.synthesizer.sample_rate


class Speaking:
    """Speaks with XTTS voices, and through RVC voices."""

    def __init__(self, settings: InferenceSettings, paths: Paths, process: Speaks, voices: Voices) -> None:
        self._settings = settings
        self._paths = paths
        self._process = process
        self._voices = voices
        self._checked: OrderedDict[str, Vocabulary] = OrderedDict()
        self._base: tuple[tuple[str, int, int], str] = (("", 0, 0), "")
        self._lock = threading.Lock()

    async def prepare(self, wanted: SpeechRequest, *, longest: int | None = None) -> Speech:
        """Looks at everything before anything is said. `longest`: characters of the text; SPEECH_LIMIT by default.

        Raises NotFound, InvalidInput (voice, language, text), ProviderUnavailable for a voice that its provider
        speaks, ModelFileRefused, Unavailable for files that are not those of the card.
        """
        return await asyncio.to_thread(self._prepare, wanted, longest or self._settings.speech_limit)

    def _prepare(self, wanted: SpeechRequest, longest: int) -> Speech:
        who = self._published(wanted) if wanted.reference is None else self._imitated(wanted, wanted.reference)
        language = language_of(wanted.language, who.languages, who.language)
        text = sayable(wanted.text, language, who.vocabulary, longest=longest)
        through = self._voices.get(wanted.through) if wanted.through is not None else None
        return Speech(
            wish=Wish(
                key=f"{who.folder}:{who.sha256}",
                folder=str(who.folder),
                weights=who.weights,
                language=language,
                speed=wanted.speed,
                temperature=wanted.temperature,
                seed=wanted.seed,
                reference=who.reference,
            ),
            parts=pieces(text.text, LIMITS.get(language, LIMITS["en"])),
            text=text,
            version=who.version,
            sha256=who.sha256,
            through=through,
            conversion=None if through is None else Conversion(pitch_shift=wanted.pitch_shift, seed=wanted.seed),
        )

    def _published(self, wanted: SpeechRequest) -> _Speaker:
        card = read_card(self._paths, wanted.voice or "")
        if card is None:
            raise NotFound(f"there is no voice {wanted.voice}", field="voice")
        _check_kind(wanted.voice or "", card)
        version = self._paths.voice(wanted.voice or "").version(str(card["version"]))
        return _Speaker(
            folder=version.folder,
            weights=version.weights.name,
            sha256=str(card["weights"]["sha256"]),
            version=str(card["version"]),
            vocabulary=self._vocabulary(version, card),
            languages=tuple(str(language) for language in card.get("languages", ())),
            language=str(card.get("language", "")),
        )

    def _imitated(self, wanted: SpeechRequest, upload_id: str) -> _Speaker:
        """The base model, with the voice of a staged recording. Raises ProviderUnavailable, VoiceSampleNotFound."""
        assert self._settings.xtts_path is not None
        base = BaseModel(self._settings.xtts_path)
        if missing := base.missing_to_speak():
            raise ProviderUnavailable(
                f"imitating a voice needs the base model at XTTS_PATH; it lacks {', '.join(missing)}",
                actions=("Run scripts/fetch-assets xtts where inference runs, or point XTTS_PATH to a folder.",),
            )
        if self._settings.xtts_licence_accepted != LICENCE:
            raise ProviderUnavailable(
                "the licence of the base model is not accepted: non-commercial use only, of what it says as well",
                actions=(f"Read LICENSE.txt beside the weights, and set XTTS_LICENCE_ACCEPTED={LICENCE}.",),
            )
        upload = self._paths.staged_upload(upload_id)
        if not upload.wav.is_file():
            raise VoiceSampleNotFound("the recording is not there any more", field="audio")
        vocabulary = read_vocabulary(base.vocabulary)
        return _Speaker(
            folder=base.folder,
            weights=base.weights.name,
            sha256=self._sha256(base),
            version=BASE,
            vocabulary=vocabulary,
            languages=tuple(vocabulary.languages),
            language="",
            reference=str(upload.wav),
        )

    def _sha256(self, base: BaseModel) -> str:
        """The checksum of the base model's weights, read once while they do not change."""
        facts = base.weights.stat()
        key = (str(base.weights), facts.st_size, facts.st_mtime_ns)
        with self._lock:
            if self._base[0] != key:
                self._base = key, sha256_of(base.weights)
            return self._base[1]

    async def sounds(self, speech: Speech) -> AsyncGenerator[Wave, None]:
        """The speech piece by piece, float32 `[T]` at its sample rate. Raises what `saying.say` raises."""
        attempts = self._settings.speech_attempts
        said = saying.say(self._process, speech.parts, speech.wish, attempts=attempts, retried=_retried)
        async with aclosing(said):
            async for wave in said:
                yield wave if speech.through is None else await asyncio.to_thread(_converted, speech, wave)

    def _vocabulary(self, version: VoiceVersion, card: dict[str, Any]) -> Vocabulary:
        """The vocabulary of a version whose files were compared with their card, once."""
        key = f"{version.folder}:{card['weights']['sha256']}"
        with self._lock:
            if key not in self._checked:
                for facts in (card["weights"], *card.get("files", ())):
                    path = version.file(str(facts["file"]))
                    if not path.is_file():
                        raise NotFound(
                            f"the version {card['version']} of the voice {version.slug} is not there any more"
                        )
                    if sha256_of(path) != facts["sha256"]:
                        raise Unavailable(
                            f"{path.name} is not the file that its card names", actions=("Publish the voice again.",)
                        )
                self._checked[key] = read_vocabulary(version.file("vocab.json"))
                while len(self._checked) > _KEPT:
                    self._checked.popitem(last=False)
            self._checked.move_to_end(key)
            return self._checked[key]


def language_of(asked: str | None, known: Sequence[str], own: str) -> str:
    """The language to speak in: the one that is asked for, `en-GB` as `en`, or the voice's `own`.

    Raises InvalidInput for one that is not `known` to the voice.
    """
    language = (asked or own).lower()
    for candidate in (language, language.split("-")[0], f"{language}-cn"):
        if candidate in LIMITS and candidate in known:
            return candidate
    raise InvalidInput(
        f"the voice does not speak {asked or language!r}; it knows {', '.join(sorted(known))}",
        field="language",
        actions=("Choose one of these languages.",),
    )


def _check_kind(slug: str, card: dict[str, Any]) -> None:
    kind = card.get("kind", "rvc")
    if kind == "rvc":
        raise InvalidInput(
            f"the voice {slug!r} converts recordings and does not speak text",
            field="voice",
            actions=("Choose an XTTS voice, and name this one as `through`.",),
        )
    if kind != "xtts":
        raise ProviderUnavailable(
            f"the voice {slug!r} is spoken by {kind}, and this platform asks only XTTS for speech",
            field="voice",
            actions=("Choose an XTTS voice.",),
        )


def _converted(speech: Speech, wave: Wave) -> Wave:
    """A piece in the voice that it goes through; a pause alone stays one."""
    assert speech.through is not None
    rate = speech.sample_rate
    if len(wave) < RATE // 4:
        return np.zeros(round(len(wave) / RATE * rate), dtype=np.float32)
    return speech.through.converter.convert(wave, RATE, speech.conversion)[0]


def _retried(fault: str) -> None:
    log.warning("speech.again", fault=fault)
