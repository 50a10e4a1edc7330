"""A tiny XTTS that stops by itself: `python -m tests.xtts_voice voice|base BASE FOLDER`, where coqui-tts is.

Random weights hardly ever end a sentence. The code that ends it is made likely, so that about half of all attempts
are as long as a short greeting may be.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

STOP_CODE, LIKELIER = 1025, 1.3


def build(base: Path, folder: Path) -> None:
    """The files of docs/xtts.md but the card, with the speaker of a noise."""
    import torch

    from libs.voice.xtts.base import BaseModel
    from libs.voice.xtts.exporting import write_voice
    from libs.voice.xtts.network import load_xtts

    torch.set_num_threads(2)
    xtts = load_xtts(base / "config.json", base / "vocab.json", base / "model.pth")
    with torch.no_grad():
        xtts.gpt.mel_head.bias[STOP_CODE] += LIKELIER
        xtts.mel_stats = torch.ones(80)
    wave = (0.1 * np.random.default_rng(0).standard_normal(3 * 22_050)).astype(np.float32)
    folder.mkdir(parents=True)
    write_voice(folder, xtts, BaseModel(base), [wave])


def build_base(base: Path, folder: Path) -> None:
    """The five files of XTTS_PATH, of which the voices that are trained stop by themselves."""
    import torch

    folder.mkdir(parents=True)
    for path in base.iterdir():
        (folder / path.name).hardlink_to(path)
    state = torch.load(base / "model.pth", weights_only=True)
    state["model"]["gpt.mel_head.bias"][STOP_CODE] += LIKELIER
    (folder / "model.pth").unlink()
    torch.save(state, folder / "model.pth")


if __name__ == "__main__":
    {"voice": build, "base": build_base}[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
