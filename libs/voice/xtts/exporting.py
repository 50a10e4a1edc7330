"""What of a fine-tune is kept to speak with, and does it speak? The files of docs/xtts.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.common.errors import ModelFileRefused
from libs.voice.atomic import save_tensors, write_atomically, write_text_atomically
from libs.voice.xtts.base import BaseModel
from libs.voice.xtts.network import SAMPLE_RATE, Wave, load_xtts, speaker_of
from libs.voice.xtts.trying import heard

WEIGHTS, CONFIG, VOCABULARY, SPEAKER = "voice.pth", "config.json", "vocab.json", "speaker.safetensors"
SPOKEN_RATE = 24_000
MOST_TOKENS = 120
"""About five seconds: enough to hear whether there is sound; a network that never stops is not waited for."""


def write_voice(folder: Path, xtts: Any, base: BaseModel, waves: Sequence[Wave]) -> list[str]:
    """Writes the slim checkpoint, its settings and vocabulary, the speaker and the reference clips; their names.

    `waves`: clips of the speaker, float32 `[T]` at 22,050 Hz. Raises StorageFull.
    """
    from safetensors.torch import save

    state = {name: value.detach().cpu().contiguous() for name, value in xtts.state_dict().items()}
    write_atomically(folder / WEIGHTS, lambda stream: save_tensors({"model": state}, stream))
    settings = json.loads(base.config.read_text(encoding="utf-8"))
    write_text_atomically(folder / CONFIG, json.dumps(without_paths(settings), indent=1, sort_keys=True))
    write_atomically(folder / VOCABULARY, lambda stream: _ignore(stream.write(base.vocabulary.read_bytes())))
    speaker = speaker_of(xtts, np.concatenate(list(waves)))
    write_atomically(folder / SPEAKER, lambda stream: _ignore(stream.write(save(speaker))))
    references = []
    for number, wave in enumerate(waves, 1):
        name = f"reference-{number}.wav"
        write_wav(folder / name, resample(wave, SAMPLE_RATE, SPOKEN_RATE), SPOKEN_RATE)
        references.append(name)
    return [WEIGHTS, CONFIG, VOCABULARY, SPEAKER, *references]


def without_paths(value: Any) -> Any:
    """Settings in which no text names a place on a machine: where files lie is for whoever loads them to say."""
    if isinstance(value, dict):
        return {name: without_paths(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_paths(item) for item in value]
    return "" if isinstance(value, str) and (value.startswith(("/", "~")) or "://" in value or "\\" in value) else value


def try_voice(folder: Path, weights: str, text: str, language: str) -> dict[str, float]:
    """Loads a packaged voice and has it say a few words: `seconds`, `peak` and `level_db` of the sound.

    Raises ModelFileRefused for files that do not load, ModelValidationFailed for silence and for what is no number.
    """
    from safetensors.torch import load_file

    xtts = load_xtts(folder / CONFIG, folder / VOCABULARY, folder / weights)
    xtts.gpt.init_gpt_for_inference(kv_cache=xtts.args.kv_cache, use_deepspeed=False)
    xtts.gpt.eval()
    try:
        speaker = load_file(folder / SPEAKER)
        latent, embedding = speaker["gpt_cond_latent"], speaker["speaker_embedding"]
    except Exception as error:
        raise ModelFileRefused(f"{SPEAKER} does not hold a speaker: {error}") from error
    torch.manual_seed(0)
    wave = np.asarray(
        xtts.inference(text, language, latent, embedding, temperature=0.65, max_new_tokens=MOST_TOKENS)["wav"],
        dtype=np.float32,
    ).reshape(-1)
    return heard(wave)


def _ignore(_: Any) -> None:
    """A write returns how much it wrote; all of it, or it raises."""
