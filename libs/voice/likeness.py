"""How alike are two voices? Speaker embeddings: a neural one when installed, a statistical one that needs no weights.

Numbers of different embeddings are never comparable: each result carries its `name`.
"""

from __future__ import annotations

import io
import warnings
from contextlib import redirect_stdout
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from libs.common.errors import InvalidInput, Unavailable
from libs.voice.content_network import WINDOW, log_mel, mel_filters

Float32 = NDArray[np.float32]


class SpeakerEmbedding(Protocol):
    """A fixed number of values that say who speaks."""

    @property
    def name(self) -> str:
        """Goes with every number made from it."""
        ...

    def embed(self, wave16k: Float32) -> Float32:
        """`wave16k` float32 `[T]` at 16 kHz → unit vector."""
        ...


class NeuralEmbedding:
    """Resemblyzer's 256 values (Wan et al. 2018, arXiv 1710.10467). Same speaker 0.87 ± 0.05, different 0.53 ± 0.07.

    Its weights are inside its wheel. Raises Unavailable when the extra `quality` is not installed.
    """

    name = "resemblyzer-0.1"

    def embed(self, wave16k: Float32) -> Float32:
        """float32 `[256]`. Silence is cut out and loudness set by Resemblyzer's own preparation."""
        _require(wave16k)
        encoder, prepare = _resemblyzer()
        with torch.random.fork_rng():
            found: Float32 = encoder.embed_utterance(prepare(wave16k.astype(np.float32), source_sr=16000))
        return found


class StatisticalEmbedding:
    """Means and deviations of 30 mel cepstra, without weights: C-24. Coarse: it also hears microphone and room."""

    name = "mel-cepstra-statistics-1"

    def embed(self, wave16k: Float32) -> Float32:
        """float32 `[60]` over frames within 5 nepers of the loudest; cepstra weighted by number, so that all count."""
        _require(wave16k)
        mel = log_mel(torch.from_numpy(np.ascontiguousarray(wave16k, dtype=np.float32)), mel_filters(80)).numpy()
        loudness = mel.mean(axis=0)
        mel = mel[:, loudness >= loudness.max() - 5.0]
        numbers = np.arange(1, 31)
        cosines = np.cos(np.pi / 80 * numbers[:, None] * (np.arange(80) + 0.5))
        cepstra = cosines @ mel / 40 * np.sqrt(numbers)[:, None]
        both = np.concatenate((cepstra.mean(axis=1), cepstra.std(axis=1)))
        return np.asarray(both / max(float(np.linalg.norm(both)), 1e-9), dtype=np.float32)


def similarity(one: Float32, other: Float32, embedding: SpeakerEmbedding) -> float:
    """Cosine of the embeddings of two waves `[L]` at 16 kHz, -1…1: 1 is the same voice."""
    return float(np.dot(embedding.embed(one), embedding.embed(other)))


def best_embedding() -> SpeakerEmbedding:
    """The neural embedding when it is installed, otherwise the statistical one."""
    try:
        _resemblyzer()
    except Unavailable:
        return StatisticalEmbedding()
    return NeuralEmbedding()


@lru_cache(maxsize=1)
def _resemblyzer() -> tuple[Any, Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from resemblyzer import VoiceEncoder, preprocess_wav
    except ImportError as missing:
        raise Unavailable(
            "Speaker likeness is measured by Resemblyzer, which is not installed: it comes with the extra `quality`.",
            actions=('Install it: pip install "voicewright[quality]".',),
        ) from missing
    with redirect_stdout(io.StringIO()):
        encoder = VoiceEncoder("cpu", verbose=False)
    return encoder, preprocess_wav


def _require(wave: Float32) -> None:
    if len(wave) < WINDOW:
        raise InvalidInput(f"{len(wave)} samples given; a speaker is recognised from {WINDOW} on at 16 kHz")
