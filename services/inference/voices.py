"""Which voices are in memory? Loaded by checksum, so a retrained voice is noticed and an answer is of one version."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from libs.common.errors import InvalidInput, NotFound, Unavailable
from libs.common.logs import get_logger
from libs.common.manifests import sha256_of
from libs.common.paths import Paths
from libs.voice.artefact import load_synthesizer
from libs.voice.chain import Converter
from libs.voice.compiled import Choice, DecoderCompiler
from libs.voice.content import ContentEncoder, Version, check_same_encoder, load_content_encoder
from libs.voice.pitch import Pitch
from libs.voice.retrieval import read_index
from services.inference.cards import read_card, served_weights

log = get_logger("voices")

RELOADS = 3
SILENCE = 1600


@dataclass(frozen=True)
class LoadedVoice:
    """One version of a voice, ready to convert; never changed, so requests may share it."""

    slug: str
    version: str
    sha256: str
    card: dict[str, Any]
    converter: Converter


class Voices:
    """A cache of loaded voices, the least recently used dropped first. Calls block and are safe from threads."""

    def __init__(self, paths: Paths, *, capacity: int, device: str = "cpu", compiling: Choice = "off") -> None:
        self._paths = paths
        self._capacity = capacity
        self._device = device
        self._loaded: OrderedDict[tuple[str, str], LoadedVoice] = OrderedDict()
        self._encoders: dict[str, ContentEncoder] = {}
        self._lock = threading.Lock()
        self._encoder_lock = threading.Lock()
        self._compiler = DecoderCompiler(compiling, device, log.info)
        self.pitch = Pitch(paths.rmvpe, device=device)

    def get(self, slug: str) -> LoadedVoice:
        """The version that is served now. Raises NotFound, ModelFileRefused, InvalidInput for another encoder's voice.

        The card is replaced last when a version is published, so weights and index of the version that it names are
        whole. A version that vanishes between the card and the load (its voice was deleted or republished) is asked
        for again.
        """
        problem: Exception | None = None
        for _ in range(RELOADS):
            card = read_card(self._paths, slug)
            if card is None:
                raise NotFound(f"there is no voice {slug}", field="voice")
            if card.get("kind", "rvc") != "rvc":
                raise InvalidInput(f"the voice {slug!r} speaks text and converts nothing", field="voice")
            index = (card["index"] or {}).get("sha256", "")
            key = (slug, f"{card['version']}:{card['weights']['sha256']}:{index}")
            with self._lock:
                if key in self._loaded:
                    self._loaded.move_to_end(key)
                    return self._loaded[key]
                try:
                    voice = self._load(slug, card)
                except (FileNotFoundError, NotFound) as error:
                    problem = error
                    continue
                self._loaded[key] = voice
                while len(self._loaded) > self._capacity:
                    self._loaded.popitem(last=False)
                return voice
        raise Unavailable(f"the files of the voice {slug} are being changed: {problem}", retry_after=1.0)

    def _load(self, slug: str, card: dict[str, Any]) -> LoadedVoice:
        version = self._paths.voice(slug).version(str(card["version"]))
        weights, sha256 = served_weights(version, card)
        self._check(weights, sha256)
        synthesizer = load_synthesizer(weights, self._device)
        encoder = self.check_encoder(card, synthesizer.content_width)
        index = None
        if card["index"] is not None:  # a voice that came without one, or was merged
            self._check(version.index, card["index"]["sha256"])
            index = read_index(version.index, width=synthesizer.content_width)
        self._compiler.take(synthesizer)
        return LoadedVoice(
            slug=slug,
            version=str(card["version"]),
            sha256=str(card["weights"]["sha256"]),
            card=card,
            converter=Converter(synthesizer, encoder, self.pitch, index, joining="smooth"),
        )

    def check_encoder(self, card: dict[str, Any], width: int) -> ContentEncoder:
        """The encoder for a voice with `width` values a frame. Raises InvalidInput when the voice needs another."""
        encoder = self._encoder("v1" if width == 256 else "v2")
        check_same_encoder(card.get("content_encoder"), encoder)
        return encoder

    def _check(self, path: Path, expected: str) -> None:
        if sha256_of(path) != expected:
            raise Unavailable(f"{path.name} is not the file that its card names", actions=("Publish the voice again.",))

    def _encoder(self, version: Version) -> ContentEncoder:
        with self._encoder_lock:
            if version not in self._encoders:
                self._encoders[version] = load_content_encoder(self._paths.hubert, version=version, device=self._device)
            return self._encoders[version]

    def describe(self) -> str:
        """Content encoder and pitch method that conversions use here. Raises ModelFileRefused, InvalidInput."""
        encoder = self._encoder("v2")
        self.pitch.f0(np.zeros(SILENCE, dtype=np.float32))  # loads the method's model once, so a broken file is found
        return f"content by {encoder.name} ({encoder.checksum[:12]}), pitch by {self.pitch.resolve('auto')}"


class EnginesCheck:
    """The content encoder and the pitch method are there and load."""

    name = "engines"

    def __init__(self, voices: Voices) -> None:
        self._voices = voices

    async def __call__(self) -> str:
        return await asyncio.to_thread(self._voices.describe)
