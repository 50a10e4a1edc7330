"""How does a loaded voice say a piece of text? For the process that has coqui-tts; voices are kept, the oldest goes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.common.errors import Cancelled, InvalidInput, ModelFileRefused
from libs.voice.xtts.exporting import CONFIG, SPEAKER, VOCABULARY
from libs.voice.xtts.network import Wave, load_xtts

CODES_PER_SECOND = 22_050 / 1024
STOP_CODE = 1025
Stop = Callable[[], bool]


class TooManyTokens(Exception):
    """The piece has more tokens than the network takes at once; it is to be cut."""


class Speaker:
    """One voice, in evaluation mode on its device, with the latents of its speaker."""

    def __init__(self, folder: Path, weights: str, device: str) -> None:
        """`folder`: a version as docs/xtts.md describes it. Raises ModelFileRefused, NotFound."""
        from safetensors.torch import load_file

        self._xtts = load_xtts(folder / CONFIG, folder / VOCABULARY, folder / weights)
        self._xtts.gpt.init_gpt_for_inference(kv_cache=self._xtts.args.kv_cache, use_deepspeed=False)
        self._xtts.gpt.eval()
        self._xtts.to(device)
        try:
            speaker = load_file(folder / SPEAKER)
            self._latent, self._embedding = speaker["gpt_cond_latent"], speaker["speaker_embedding"]
        except Exception as error:
            raise ModelFileRefused(f"{SPEAKER} does not hold a speaker: {error}") from error
        self._codes: Any = None
        generate = self._xtts.gpt.generate

        def remembered(*given: Any, **more: Any) -> Any:
            self._codes = generate(*given, **more)
            return self._codes

        self._xtts.gpt.generate = remembered

    def say(
        self, text: str, language: str, *, speed: float, temperature: float, seed: int, seconds: float, stop: Stop
    ) -> tuple[Wave, bool]:
        """`text` at `speed` as float32 `[T]` at 24 kHz, and whether the network ended by itself within `seconds`.

        `seconds` are those at speed 1. Raises TooManyTokens, Cancelled when `stop` says so between two codes.
        """
        settings = self._xtts.args
        try:
            tokens = len(self._xtts.tokenizer.encode(text.strip().lower(), lang=language))
        except ImportError as error:
            raise InvalidInput(f"texts in {language} need a package more: {error}", field="language") from error
        if tokens >= settings.gpt_max_text_tokens:
            raise TooManyTokens(f"{tokens} tokens")
        most = max(1, min(round(seconds * CODES_PER_SECOND), settings.gpt_max_audio_tokens - 1))
        torch.manual_seed(seed)
        with _interrupted(self._xtts.gpt.gpt_inference, stop):
            made = self._xtts.inference(
                text,
                language,
                self._latent,
                self._embedding,
                temperature=temperature,
                speed=speed,
                max_new_tokens=most,
            )["wav"]
        has_ended = bool((self._codes[0] == STOP_CODE).any()) or self._codes.shape[-1] < most
        return np.asarray(made, dtype=np.float32).reshape(-1), has_ended


@contextmanager
def _interrupted(network: Any, stop: Stop) -> Iterator[None]:
    """While it lasts, each pass of `network` asks `stop` first: a piece takes a minute on a CPU."""

    def ask(*_: Any) -> None:
        if stop():
            raise Cancelled

    hook = network.register_forward_pre_hook(ask)
    try:
        yield
    finally:
        hook.remove()


class Speakers:
    """Loaded voices by key, `most` of them: the true network has four gigabytes."""

    def __init__(self, most: int, device: str) -> None:
        self._most = most
        self._device = device
        self._held: OrderedDict[str, Speaker] = OrderedDict()

    def get(self, key: str, folder: Path, weights: str) -> Speaker:
        """The voice whose files `key` stands for, loaded if need be. Raises as `Speaker` does."""
        if key not in self._held:
            while len(self._held) >= self._most:  # before the next one is loaded: two may not fit
                self._held.popitem(last=False)
            self._held[key] = Speaker(folder, weights, self._device)
        self._held.move_to_end(key)
        return self._held[key]
