"""How much of a language's articulation do content features hold? One linear layer reads it, language by language.

    python -m scripts.pretrain.synthetic var/pretrain/synthetic.npz
    python -m scripts.pretrain.languages var/pretrain/synthetic.npz

Learns to read from the first file, in other voices and in 13 languages, and is judged on `…-unseen.npz`: in languages
that were read, and in two that were not. Beside the features of the content encoder it reads log-mels, which hold
everything, the speaker too.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from libs.voice.content_network import level_of_speech
from libs.voice.content_small import SmallContentEncoder
from scripts.pretrain.articulation import FEATURES
from scripts.pretrain.pieces import Piece, of_synthetic_speech
from scripts.pretrain.probes import articulation_found

RIDGE = 1e-3
FLOOR = -6.0
Hear = Callable[[Piece], Tensor]


def posteriors(encoder: SmallContentEncoder) -> Hear:
    """Piece → phone posteriors `[N, classes]` at 20 ms."""

    def hear(piece: Piece) -> Tensor:
        logits = encoder.network((piece.mel - level_of_speech(piece.mel))[None])[0, : encoder.network.config.classes]
        return functional.softmax(logits.float(), dim=0).T

    return hear


def log_mels(piece: Piece) -> Tensor:
    """Piece → log-mels less their level `[N, bands]` at 20 ms."""
    return (piece.mel - level_of_speech(piece.mel)).clamp(min=FLOOR).T[::2]


def reader(hear: Hear, pieces: Sequence[Piece]) -> nn.Linear:
    """The layer that tells best, by least squares, which articulatory features are present: above 0 is yes.

    What is present and what is absent weigh the same in all, however rare a feature is.
    """
    heard, known = [], []
    for piece in pieces:
        features = hear(piece)
        truth = piece.articulation[:, : len(features)].T
        there = ~truth.isnan().any(dim=1)
        heard.append(features[: len(truth)][there])
        known.append(truth[there] > 0.5)
    x, present = torch.cat(heard).double(), torch.cat(known)
    x = torch.cat((x, torch.ones(len(x), 1, dtype=torch.float64)), dim=1)
    layer = nn.Linear(x.shape[1] - 1, present.shape[1]).requires_grad_(False)
    for number, here in enumerate(present.T):
        share = here.double().mean().clamp(1e-6, 1 - 1e-6)
        weighted = x * torch.where(here, 0.5 / share, 0.5 / (1 - share))[:, None]
        wanted = torch.where(here, 1.0, -1.0).double()
        ridge = RIDGE * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
        found = torch.linalg.solve(weighted.T @ x + ridge, weighted.T @ wanted)
        layer.weight[number], layer.bias[number] = found[:-1].float(), found[-1].float()
    return layer


@torch.inference_mode()
def measured(hear: Hear, learned: Sequence[Piece], unseen: Sequence[Piece]) -> dict[str, float]:
    """See `articulation_found`, rounded."""
    layer = reader(hear, learned)
    found = articulation_found(lambda piece: layer(hear(piece)), unseen)
    return {language: round(value, 3) for language, value in found.items()}


def main(given: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("synthetic", type=Path, help="of synthetic.py; …-unseen.npz lies beside it")
    parser.add_argument("--content", type=Path, default=None, help="weights instead of the shipped ones")
    arguments = parser.parse_args(given)

    learned = of_synthetic_speech(arguments.synthetic)
    unseen = of_synthetic_speech(arguments.synthetic.with_name(arguments.synthetic.stem + "-unseen.npz"))
    encoder = SmallContentEncoder(arguments.content, packed=False)
    print(json.dumps({"features": len(FEATURES), "content": measured(posteriors(encoder), learned, unseen)}))
    print(json.dumps({"features": len(FEATURES), "log-mels": measured(log_mels, learned, unseen)}))


if __name__ == "__main__":
    main()
