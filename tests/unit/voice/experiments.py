"""Makes small experiment folders with synthetic features, as the preprocessor would leave them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import soundfile


def make_experiment(
    folder: Path,
    *,
    sources: int = 5,
    pieces: int = 2,
    seconds: float = 1.0,
    rate: int = 16_000,
    width: int = 768,
    seed: int = 0,
    mutes: int = 0,
    speakers: int = 1,
) -> Path:
    """`sources` recordings of `pieces` pieces each: a tone that glides, and features that say which pitch it has.

    With several `speakers` they take turns, and the list says whose each recording is.
    """
    draw = np.random.default_rng(seed)
    for name in ("0_gt_wavs", "2a_f0", "2b_f0nsf", f"3_feature{width}"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    lines = []
    names = [f"{i}_{j}" for i in range(sources) for j in range(pieces)] + [f"mute{i}" for i in range(mutes)]
    for name in names:
        length = seconds * draw.uniform(0.8, 1.2)
        frames = int(length * 100)
        f0 = np.full(frames + 1, 120.0) + 60 * np.sin(np.arange(frames + 1) / 20 + draw.uniform(0, 6))
        f0[:8] = 0.0
        samples = np.repeat(f0[:frames], rate // 100)
        wave = 0.3 * np.sin(2 * np.pi * np.cumsum(samples) / rate) * (samples > 0)
        wave = wave + 0.01 * draw.standard_normal(len(wave))
        if name.startswith("mute"):
            wave, f0 = wave * 0, f0 * 0
        features = draw.standard_normal((frames // 2, width)).astype(np.float32)
        coarse = np.clip(np.rint(f0 / 4), 1, 255).astype(np.int64)
        paths = [
            f"0_gt_wavs/{name}.wav",
            f"3_feature{width}/{name}.npy",
            f"2a_f0/{name}.wav.npy",
            f"2b_f0nsf/{name}.wav.npy",
        ]
        soundfile.write(str(folder / paths[0]), wave.astype(np.float32), rate, subtype="FLOAT")
        np.save(folder / paths[1], features)
        np.save(folder / paths[2], coarse)
        np.save(folder / paths[3], f0.astype(np.float32))
        speaker = 0 if name.startswith("mute") else int(name.split("_")[0]) % speakers
        lines.append("|".join([*paths, str(speaker)]))
    random.Random(seed).shuffle(lines)
    (folder / "filelist.txt").write_text("\n".join(lines))
    return folder
