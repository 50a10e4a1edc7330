"""Which files of XTTS-v2 have to be there, and is the library? Answered without loading anything."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

CONFIG, WEIGHTS, VOCABULARY, DVAE, MEL_STATS = "config.json", "model.pth", "vocab.json", "dvae.pth", "mel_stats.pth"
PACKAGES = {"TTS": "coqui-tts", "torchaudio": "torchaudio", "torchcodec": "torchcodec", "transformers": "transformers"}
LICENCE = "CPML-1.0"


@dataclass(frozen=True)
class BaseModel:
    """The folder of XTTS_PATH: the network that is fine-tuned, and what its training needs besides."""

    folder: Path

    @property
    def config(self) -> Path:
        """The network's settings."""
        return self.folder / CONFIG

    @property
    def weights(self) -> Path:
        """The network itself."""
        return self.folder / WEIGHTS

    @property
    def vocabulary(self) -> Path:
        """The tokens of its texts."""
        return self.folder / VOCABULARY

    @property
    def dvae(self) -> Path:
        """The encoder of sound into the tokens that are learnt; for training only."""
        return self.folder / DVAE

    @property
    def mel_stats(self) -> Path:
        """80 means, one for each mel band; for training only."""
        return self.folder / MEL_STATS

    def missing_to_speak(self) -> list[str]:
        """Names of files that are not there and that speaking needs."""
        return [path.name for path in (self.config, self.weights, self.vocabulary) if not path.is_file()]

    def missing(self) -> list[str]:
        """Names of files that are not there."""
        files = (self.config, self.weights, self.vocabulary, self.dvae, self.mel_stats)
        return [path.name for path in files if not path.is_file()]


def missing_packages() -> list[str]:
    """Packages that this interpreter cannot import, by the names that they are installed by."""
    return [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
