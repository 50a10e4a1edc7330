"""Real and made-up speech alike: pieces with what is known of them, and crops of both for `finer.py`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from libs.voice.content_network import ContentConfig, level_of_speech
from libs.voice.phones import PHONES
from scripts.pretrain.articulation import of_cmu_phones
from scripts.pretrain.encoder import load
from scripts.pretrain.synthetic import read

COSINES = 20
"""Cosines over the bands that a smoothed spectrum keeps: formants stay, harmonics go."""


@dataclass
class Piece:
    """One utterance; 2 N frames of 10 ms. `mel` `[bands, 2 N]`, `smooth` the same to be redrawn (its own level is 0).

    `phones` `[classes, N]` shares, all zero where no judge was asked; `hard` `[N]` the judge's first word;
    `articulation` `[FEATURES, N]` shares, NaN where nothing is known; `number` of the speaker, -1 if not learned from.
    """

    speaker: str
    mel: Tensor
    smooth: Tensor
    phones: Tensor
    hard: Tensor
    articulation: Tensor
    number: int = -1


@dataclass(frozen=True)
class Crops:
    """A batch: `mel` and `smooth` `[B, bands, frames]`, the others at 20 ms, `speaker` `[B]`."""

    mel: Tensor
    smooth: Tensor
    phones: Tensor
    articulation: Tensor
    speaker: Tensor


@lru_cache(maxsize=2)
def smoothing(bands: int) -> Tensor:
    """The projection `[bands, bands]` on the first `COSINES` cosines (DCT-II): cepstral liftering of log-mels."""
    places = (torch.arange(bands) + 0.5) * math.pi / bands
    cosines = torch.cos(torch.arange(COSINES)[:, None] * places) * math.sqrt(2 / bands)
    cosines[0] /= math.sqrt(2)
    return cosines.T @ cosines


def _smooth(mel: Tensor, floor: float) -> Tensor:
    return smoothing(len(mel)) @ (mel - level_of_speech(mel)).clamp(min=floor)


def of_real_speech(speech: Path, labels: Path, config: ContentConfig) -> list[Piece]:
    """The labelled files; the articulation is that of the phones that the judge heard."""
    articulation = torch.from_numpy(of_cmu_phones()).T
    pieces = []
    for utterance in load(speech, labels, config):
        frames = utterance.mel.shape[1] // 2
        mel, phones, hard = utterance.mel[:, : 2 * frames], utterance.targets[:, :frames], utterance.hard[:frames]
        pieces.append(Piece(utterance.speaker, mel, _smooth(mel, config.floor), phones, hard, articulation @ phones))
    return pieces


def of_synthetic_speech(path: Path, floor: float = ContentConfig.floor) -> list[Piece]:
    """What `synthetic.py` wrote; a speaker is a voice."""
    pieces = []
    for spoken in read(path):
        frames = spoken.mel.shape[1] // 2
        mel = torch.from_numpy(spoken.mel)[:, : 2 * frames]
        known = torch.from_numpy(spoken.articulation).T[:, :frames].contiguous()
        nothing, silence = torch.zeros(len(PHONES), frames), torch.zeros(frames, dtype=torch.long)
        pieces.append(Piece(spoken.voice, mel, _smooth(mel, floor), nothing, silence, known))
    return pieces


def draw_pieces(
    real: list[Piece], real_count: int, made: list[Piece], made_count: int, frames: int, generator: torch.Generator
) -> Crops:
    """Chance crops of `frames` of 10 ms (even), all a little faster or slower; long pieces are drawn more often."""
    speed = float(torch.rand(1, generator=generator)) * 0.35 + 0.85
    half = frames // 2
    source = round(half * speed)
    parts: dict[str, list[Tensor]] = {"mel": [], "smooth": [], "phones": [], "articulation": []}
    speakers = []
    for pieces, count in ((real, real_count), (made, made_count)):
        if not count:
            continue
        lengths = torch.tensor([float(piece.mel.shape[1]) for piece in pieces])
        for number in torch.multinomial(lengths, count, replacement=True, generator=generator).tolist():
            piece = pieces[number]
            room = max(piece.phones.shape[1] - source, 0)
            start = int(torch.randint(room + 1, (1,), generator=generator))
            fine, coarse = slice(2 * start, 2 * (start + source)), slice(start, start + source)
            for name in ("mel", "smooth"):
                crop = getattr(piece, name)[None, :, fine]
                parts[name].append(functional.interpolate(crop, frames, mode="linear", align_corners=True)[0])
            for name in ("phones", "articulation"):
                crop = getattr(piece, name)[None, :, coarse]
                parts[name].append(functional.interpolate(crop, half, mode="nearest")[0])
            speakers.append(piece.number)
    stacked = {name: torch.stack(crops) for name, crops in parts.items()}
    return Crops(speaker=torch.tensor(speakers), **stacked)
