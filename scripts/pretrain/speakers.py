"""Speech of many speakers as `decoder.py` learns from it: sound, pitch and content, and crops of them by seed and step.

Content is heard several times, once as it is and else through disguises: formants and tilt of somebody else, so that
the decoder takes the timbre from the speaker and not from what is left of it in the content.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from libs.voice.batch import Batch, stream_seed
from libs.voice.content_network import level_of_speech, log_mel
from libs.voice.content_small import FEATURE_SCALE, SmallContentEncoder
from libs.voice.pitch import Pitch
from scripts.pretrain.labels import SOUNDS, read_16k

DISGUISES = 3
PEAK = 0.9


@dataclass(frozen=True)
class Utterance:
    """T frames of 10 ms: `wave` float32 `[T * hop]`, `f0` Hz `[T]`, `content` `[views, T // 2, used]` at 20 ms.

    `number`: place of the speaker among those that are learned from, -1 for the others.
    """

    speaker: str
    number: int
    wave: NDArray[np.float32]
    f0: NDArray[np.float32]
    content: NDArray[np.float16]

    @property
    def frames(self) -> int:
        """T."""
        return len(self.f0)


def disguised(mel: Tensor, chance: torch.Generator) -> Tensor:
    """Log-mel `[bands, M]` as of another vocal tract: frequencies by 0.82…1.2, tilted by up to a neper at each end."""
    bands = len(mel)
    warp, tilt = torch.rand(2, generator=chance).tolist()
    factor = math.exp(math.log(0.82) + warp * math.log(1.2 / 0.82))
    position = torch.linspace(-1, 1, bands)
    places = ((position + 1) * factor - 1).clamp(max=1.0)  # the bottom of the spectrum stays where it is
    grid = torch.stack((torch.zeros(bands), places), dim=-1)[None, None]
    rows = mel.T[None, :, :, None]
    bent: Tensor = functional.grid_sample(rows, grid, align_corners=True, padding_mode="border")[0, :, 0].T
    tilted: Tensor = bent + (2 * tilt - 1) * position[:, None]
    return tilted


def heard(encoder: SmallContentEncoder, wave: NDArray[np.float32], seed: int) -> NDArray[np.float16]:
    """Posteriors, scaled as the encoder gives them, of `wave` at 16 kHz: `[1 + DISGUISES, N, classes]`."""
    mel = log_mel(torch.from_numpy(wave), encoder.filters)
    chance = torch.Generator().manual_seed(seed)
    views = torch.stack([mel, *(disguised(mel, chance) for _ in range(DISGUISES))])
    with torch.inference_mode():
        logits = encoder.network(torch.stack([view - level_of_speech(view) for view in views]))
        found = FEATURE_SCALE * functional.softmax(logits.float(), dim=1).transpose(1, 2)
    return np.asarray(found.numpy(), dtype=np.float16)


def prepare(speech: Path, kept: Path, rate: int, seed: int) -> str:
    """Reads a folder of speech into the file `kept`, unless it is there; returns the checksum of the encoder."""
    encoder, pitch = SmallContentEncoder(packed=False), Pitch()
    if kept.exists():
        return encoder.checksum
    arrays: dict[str, NDArray[np.generic]] = {}
    for path in sorted(path for path in speech.rglob("*") if path.suffix.lower() in SOUNDS):
        low = read_16k(path)
        low = low * np.float32(PEAK / max(float(np.abs(low).max()), 1e-4))
        wave = soxr.resample(low, 16000, rate).astype(np.float32)
        content, f0 = heard(encoder, low, stream_seed(seed, path.stem, 0)), pitch.f0(low).astype(np.float32)
        frames = 2 * (min(len(wave) // (rate // 100), len(f0), 2 * content.shape[1]) // 2)
        arrays[f"{path.stem}/wave"] = (wave[: frames * (rate // 100)] * 32767).astype(np.int16)
        arrays[f"{path.stem}/f0"] = f0[:frames]
        arrays[f"{path.stem}/content"] = content[:, : frames // 2]
    kept.parent.mkdir(parents=True, exist_ok=True)
    draft = kept.with_name(f"{kept.stem}.part.npz")
    np.savez(draft, allow_pickle=False, **arrays)
    draft.replace(kept)
    return encoder.checksum


def read(kept: Path, held_out_every: int) -> tuple[list[Utterance], list[Utterance]]:
    """(learned from, held out): whole utterances; the speaker is the name up to its first hyphen, as in LibriSpeech."""
    with np.load(kept, allow_pickle=False) as found:
        names = sorted({name.split("/")[0] for name in found.files})
        unseen = names[::held_out_every]
        speakers = sorted({name.split("-")[0] for name in names if name not in unseen})
        utterances = [
            Utterance(
                name.split("-")[0],
                -1 if name in unseen else speakers.index(name.split("-")[0]),
                found[f"{name}/wave"].astype(np.float32) / 32767,
                found[f"{name}/f0"],
                found[f"{name}/content"],
            )
            for name in names
        ]
    return [u for u in utterances if u.number >= 0], [u for u in utterances if u.number < 0]


def crops(utterances: list[Utterance], batch: int, frames: int, width: int, seed: int, step: int) -> Batch:
    """The batch of `step`: long utterances are drawn more often, each crop is heard in a view of chance."""
    chance = np.random.default_rng(stream_seed(seed, "crops", step))
    lengths = np.array([utterance.frames for utterance in utterances], dtype=np.float64)
    chosen = [utterances[i] for i in chance.choice(len(utterances), batch, p=lengths / lengths.sum())]
    cut = [
        (u, 2 * int(chance.integers(0, (u.frames - frames) // 2 + 1)), int(chance.integers(len(u.content))))
        for u in chosen
    ]
    return collected(cut, frames, width, step, tuple(stream_seed(seed, f"item {i}", step) for i in range(batch)))


def collected(
    cut: list[tuple[Utterance, int, int]], frames: int, width: int, step: int, seeds: tuple[int, ...]
) -> Batch:
    """Crops (utterance, even first frame, view of the content), each of `frames`; content is padded to `width`."""
    hop = len(cut[0][0].wave) // cut[0][0].frames
    content = np.zeros((len(cut), frames, width), np.float32)
    for i, (u, first, view) in enumerate(cut):
        found = u.content[view, first // 2 : (first + frames) // 2]
        content[i, :, : found.shape[1]] = found.repeat(2, axis=0)
    f0 = np.stack([u.f0[first : first + frames] for u, first, _ in cut])
    wave = np.stack([u.wave[first * hop : (first + frames) * hop] for u, first, _ in cut])
    return Batch(
        torch.from_numpy(content),
        torch.from_numpy(f0),
        torch.ones(len(cut), frames, dtype=torch.int64),
        torch.from_numpy(wave),
        torch.full((len(cut),), frames),
        torch.tensor([u.number for u, _, _ in cut]),
        step,
        seeds,
    )
