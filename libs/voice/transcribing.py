"""What is said in a recording, as a machine hears it? The one door to faster-whisper.

The library comes with scripts/install-xtts; its model is a folder that somebody puts there (WHISPER_PATH). Nothing is
looked for on the web. What it hears is a proposal: whoever uses it says that no person has read it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from libs.common.errors import ModelFileRefused, ProviderUnavailable

if TYPE_CHECKING:  # a trainer asks what a model lacks, and stays without numpy
    import numpy as np
    import numpy.typing as npt

RATE = 16_000
PACKAGE = "faster-whisper"
FILES = ("model.bin", "config.json", "tokenizer.json")
VOCABULARIES = ("vocabulary.json", "vocabulary.txt")
HOW = (
    "Run scripts/install-xtts, and set XTTS_PYTHON as it says.",
    "Point WHISPER_PATH to a model of faster-whisper: model.bin, config.json, tokenizer.json, vocabulary.json.",
    "Or write the transcripts: PUT /api/v1/datasets/{id}/metadata.csv.",
)


def missing_files(folder: Path | None) -> list[str]:
    """What a folder lacks of a model; without a folder, the setting's name."""
    if folder is None:
        return ["a model of faster-whisper (WHISPER_PATH is not set)"]
    lacking = [name for name in FILES if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in VOCABULARIES):
        lacking.append(VOCABULARIES[0])
    return [f"{name} at WHISPER_PATH" for name in lacking]


def check_model(folder: Path | None) -> Path:
    """The folder, when it holds a model. Raises ProviderUnavailable with what it lacks."""
    if lacking := missing_files(folder):
        raise _unavailable(lacking)
    assert folder is not None
    return folder


class Transcriber:
    """A loaded model. Calls block; the processor does the work."""

    def __init__(self, folder: Path, threads: int | None = None) -> None:
        """Raises ProviderUnavailable for what is missing, ModelFileRefused for a folder that does not load."""
        check_model(folder)
        if importlib.util.find_spec("faster_whisper") is None:
            raise _unavailable([f"the package {PACKAGE}"])
        from faster_whisper import WhisperModel

        try:
            self._model = WhisperModel(str(folder), device="cpu", cpu_threads=threads or 0, local_files_only=True)
        except Exception as error:  # whatever the library makes of a file that is not what it expects
            raise ModelFileRefused(f"the model at WHISPER_PATH does not load: {str(error)[:200]}") from error

    def text_of(self, wave: npt.NDArray[np.float32], language: str) -> str:
        """What is said in `wave`, float32 `[T]` at 16 kHz, with single spaces; "" for nothing. `language` as XTTS's."""
        segments, _ = self._model.transcribe(
            wave,
            language=language.split("-")[0],
            temperature=0.0,  # the same text for the same sound
            without_timestamps=True,
            condition_on_previous_text=False,
        )
        return " ".join(" ".join(segment.text for segment in segments).split())


def _unavailable(lacking: list[str]) -> ProviderUnavailable:
    return ProviderUnavailable(
        f"transcripts cannot be made on this node: it lacks {', '.join(lacking)}", actions=HOW, missing=lacking
    )
