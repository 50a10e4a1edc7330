"""How does a loaded voice say a piece of text? For the process that has coqui-tts; voices are kept, the oldest goes."""

from __future__ import annotations

import wave
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.common.errors import BrokenAudio, Cancelled, InvalidInput, ModelFileRefused
from libs.voice.xtts.exporting import CONFIG, SPEAKER, VOCABULARY
from libs.voice.xtts.network import SAMPLE_RATE, Wave, load_xtts, speaker_of

CODES_PER_SECOND = 22_050 / 1024
STOP_CODE = 1025
Stop = Callable[[], bool]
Latents = tuple[torch.Tensor, torch.Tensor]
"""How a speaker sounds: `gpt_cond_latent` and `speaker_embedding`."""


class TooManyTokens(Exception):
    """The piece has more tokens than the network takes at once; it is to be cut."""


class Speaker:
    """One voice, in evaluation mode on its device, with the latents of its speaker."""

    def __init__(self, folder: Path, weights: str, device: str) -> None:
        """`folder`: a version as docs/xtts.md describes it, or the base model's. Raises ModelFileRefused, NotFound."""
        self._xtts = load_xtts(folder / CONFIG, folder / VOCABULARY, folder / weights)
        self._xtts.gpt.init_gpt_for_inference(kv_cache=self._xtts.args.kv_cache, use_deepspeed=False)
        self._xtts.gpt.eval()
        self._xtts.to(device)
        self._file = folder / SPEAKER
        self._own: Latents | None = None
        self._imitated: tuple[Path, Latents] | None = None
        if self._file.exists():
            self.own()
        self._codes: Any = None
        generate = self._xtts.gpt.generate

        def remembered(*given: Any, **more: Any) -> Any:
            self._codes = generate(*given, **more)
            return self._codes

        self._xtts.gpt.generate = remembered

    def own(self) -> Latents:
        """The speaker of the version. Raises ModelFileRefused for a file that holds none."""
        from safetensors.torch import load_file

        if self._own is None:
            try:
                speaker = load_file(self._file)
                self._own = speaker["gpt_cond_latent"], speaker["speaker_embedding"]
            except Exception as error:
                raise ModelFileRefused(f"{SPEAKER} does not hold a speaker: {error}") from error
        return self._own

    def imitated(self, reference: Path) -> Latents:
        """The speaker of a WAV, mono, 16 bits, at 22,050 Hz; kept until another one is asked for, and never on disk.

        Raises BrokenAudio for another file, and for one that is gone.
        """
        if self._imitated is None or self._imitated[0] != reference:
            self._imitated = None
            speaker = speaker_of(self._xtts, _read(reference))
            self._imitated = reference, (speaker["gpt_cond_latent"], speaker["speaker_embedding"])
        return self._imitated[1]

    def say(
        self,
        text: str,
        language: str,
        whose: Latents,
        *,
        speed: float,
        temperature: float,
        seed: int,
        seconds: float,
        stop: Stop,
    ) -> tuple[Wave, bool]:
        """`text` said by `whose` voice at `speed`, float32 `[T]` at 24 kHz, and whether the network ended by itself.

        It is given `seconds`, those at speed 1. Raises TooManyTokens, Cancelled when `stop` says so between two codes.
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
                *whose,
                temperature=temperature,
                speed=speed,
                max_new_tokens=most,
            )["wav"]
        has_ended = bool((self._codes[0] == STOP_CODE).any()) or self._codes.shape[-1] < most
        return np.asarray(made, dtype=np.float32).reshape(-1), has_ended


def _read(path: Path) -> Wave:
    try:
        with wave.open(str(path), "rb") as file:
            if (file.getnchannels(), file.getsampwidth(), file.getframerate()) != (1, 2, SAMPLE_RATE):
                raise BrokenAudio(f"the reference is not of {SAMPLE_RATE} Hz, mono, 16 bits", field="audio")
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise BrokenAudio(f"the reference cannot be read: {type(error).__name__}", field="audio") from error
    return np.frombuffer(content, dtype="<i2").astype(np.float32) / np.float32(32_768)


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
