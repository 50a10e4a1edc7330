"""Which providers make voices, and what should people know before they choose one?

Facts alone: how a provider works is the trainer's (`services/trainer/providers`), what one costs is worked out by the
gateway. Times, prices and amounts of speech of the last three are those of the customer's document; they are what a
job is estimated by and measured against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from libs.common.errors import InvalidInput
from libs.common.speakers import SPEAKERS

Kind = Literal["conversion", "speech"]


@dataclass(frozen=True)
class Needs:
    """The recordings that a provider asks for. `seconds` of speech: the least, and as much as helps (None: any).

    `clip_seconds`: how long one may be. Longer ones with their texts, up to `cut_seconds`, are cut where their language
    is one of `cut_languages`.
    """

    seconds: tuple[float, float | None]
    transcripts: bool = False
    consent_recording: bool = False
    clip_seconds: tuple[float, float] | None = None
    cut_seconds: float = 0.0
    cut_languages: tuple[str, ...] = ()
    advice: str = ""


@dataclass(frozen=True)
class Provider:
    """One way to a voice. `minutes`: a usual training takes from … to …; `speakers`: how many one voice can be."""

    name: str
    title: str
    kind: Kind
    presets: tuple[str, ...]
    best_for: str
    quality: str
    minutes: tuple[float, float]
    price: str
    needs: Needs
    is_local: bool = True
    speakers: int = 1
    languages: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def speaks(self) -> bool:
        """Whether its voices say text; the others convert recordings."""
        return self.kind == "speech"


RVC_PRESETS = ("lite", "rvc-tiny", *(f"rvc-v{version}-{rate}k" for version in (2, 1) for rate in (32, 40, 48)))
# fmt: off
XTTS_LANGUAGES = (
    "en", "es", "fr", "de", "it", "pt", "pl", "tr", "ru", "nl", "cs", "ar", "zh-cn", "hu", "ko", "ja", "hi",
)
# fmt: on
# Of each language the one form that the provider's consent statement is known in here.
GOOGLE_LANGUAGES = ("en-US", "en-GB", "en-AU", "en-IN", "de-DE", "fr-CA", "fr-FR")
OPENAI_LANGUAGES = ("de", "en")

PROVIDERS: dict[str, Provider] = {
    provider.name: provider
    for provider in (
        Provider(
            name="rvc",
            title="RVC and lite",
            kind="conversion",
            presets=RVC_PRESETS,
            best_for="Converting recordings into a voice, also live",
            quality="Follows melody and timing of what is converted",
            minutes=(5, 30),
            price="GPU time at GPU_HOUR_PRICE",
            needs=Needs(seconds=(10.0, 600.0), advice="Clean speech without transcripts; ten minutes are plenty."),
            speakers=SPEAKERS,
        ),
        Provider(
            name="xtts",
            title="XTTS-v2 (Coqui TTS)",
            kind="speech",
            presets=("xtts-v2",),
            best_for="High-quality voice cloning",
            quality="Excellent similarity and naturalness",
            minutes=(10, 30),
            price="GPU time, about $2.50 an hour",
            needs=Needs(
                seconds=(60.0, 300.0),
                transcripts=True,
                clip_seconds=(0.5, 11.6),
                cut_seconds=600.0,
                cut_languages=("en",),
                advice="1-5 minutes of clean speech in clips of one sentence, each with its exact text; longer "
                "recordings in English are cut at their silences.",
            ),
            languages=XTTS_LANGUAGES,
            aliases=("xtts-v2", "xtts_v2"),
        ),
        Provider(
            name="google",
            title="Google Cloud TTS Custom Voice",
            kind="speech",
            presets=("google-instant",),
            best_for="Production-ready voices",
            quality="Very good, optimized for clarity",
            minutes=(120, 240),
            price="About $300 for the training, and usage",
            needs=Needs(
                seconds=(1800.0, None),
                consent_recording=True,
                advice="30 minutes or more of high-quality speech, and a recording of Google's consent statement.",
            ),
            is_local=False,
            languages=GOOGLE_LANGUAGES,
        ),
        Provider(
            name="openai",
            title="OpenAI custom voices",
            kind="speech",
            presets=("openai-custom",),
            best_for="Quick prototyping",
            quality="Good, limited customization",
            minutes=(60, 120),
            price="About $0.008 per 1000 tokens",
            needs=Needs(
                seconds=(300.0, 900.0),
                consent_recording=True,
                advice="5-15 minutes of speech, and a recording of OpenAI's consent statement.",
            ),
            is_local=False,
            languages=OPENAI_LANGUAGES,
        ),
    )
}

_BY_PRESET = {preset: provider for provider in PROVIDERS.values() for preset in provider.presets}
_BY_NAME = {name: provider for provider in PROVIDERS.values() for name in (provider.name, *provider.aliases)}
SPEECH_PRESETS = frozenset(preset for preset, provider in _BY_PRESET.items() if provider.speaks)


def provider_named(name: str) -> Provider:
    """The provider of that name or alias; raises InvalidInput that lists them."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise InvalidInput(
            f"provider {name!r} is unknown; choose one of {', '.join(PROVIDERS)}",
            field="provider",
            actions=(f"Use one of: {', '.join(PROVIDERS)}.",),
        ) from None


def provider_of(preset: str) -> Provider:
    """Whose preset it is; raises InvalidInput for one that nobody has."""
    try:
        return _BY_PRESET[preset]
    except KeyError:
        raise InvalidInput(f"preset {preset!r} is unknown", field="preset") from None
