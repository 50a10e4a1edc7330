"""A folder of reference data made here: four blocks joined by SOLA, by loops that follow the definition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

HOP, BLOCK, FADE, SEARCH, EXTRA = 80, 400, 160, 80, 800
CROSSFADE = FADE
STEP = 4


def write_fixture(root: Path) -> Path:
    """Writes `root/live/live.{json,npz}` in the documented form; returns the folder."""
    rng = np.random.default_rng(7)
    wave = rng.integers(-3000, 3000, 4 * BLOCK).astype(np.int16)
    rendered = rng.integers(-9000, 9000, (4, BLOCK + FADE + SEARCH)).astype(np.int16)
    tail, output, offsets = np.zeros(FADE), [], []
    for voice in rendered / 32768:
        scores = []
        for offset in range(SEARCH + 1):
            part = voice[offset : offset + FADE]
            scores.append(sum(part * tail) / np.sqrt(sum(part**2) + 1e-8))
        offset = int(np.argmax(scores))
        moved = voice[offset:].copy()
        for i in range(FADE):
            rise = np.sin(np.pi / 2 * i / (FADE - 1)) ** 2
            moved[i] = rise * moved[i] + (1 - rise) * tail[i]
        output.append(moved[:BLOCK:STEP])
        tail = moved[BLOCK : BLOCK + FADE]
        offsets.append(offset)
    ring = np.concatenate([np.zeros(EXTRA + CROSSFADE + SEARCH + BLOCK), wave / 32768])[-1440:]
    arrays: dict[str, Any] = {
        "cb_x_input_int16": wave,
        "cb_x_infer_int16": rendered,
        "cb_x_output": np.array(output, dtype=np.float32),
        "cb_x_input_ring_tail_every_4": ring[::STEP].astype(np.float32),
        "cb_x_sola_tail": tail[::STEP].astype(np.float32),
    }
    callback = {
        "rate": 8000,
        "zc": HOP,
        "block": BLOCK,
        "crossfade": CROSSFADE,
        "extra": EXTRA,
        "sola_buffer": FADE,
        "sola_search": SEARCH,
        "return_length_frames": 8,
        "gate_db": -60,
        "rms_mix_rate": 1.0,
        "sola_offsets": offsets,
        "resampler_input_samples": [BLOCK + 2 * HOP] * 4,
        "note": "output: every 4th sample per block; stored tail (every 4th) after the last block",
        "tolerance": {"atol": 1e-5},
    }
    folder = root / "live"
    folder.mkdir(parents=True)
    write(folder, {"kind": "realtime path", "callback_x": callback}, arrays)
    return folder


def write(folder: Path, document: dict[str, Any], arrays: dict[str, Any]) -> None:
    """Writes both files; the list of arrays in the JSON is what the arrays are."""
    listed = {key: {"shape": list(value.shape), "dtype": str(value.dtype)} for key, value in arrays.items()}
    (folder / "live.json").write_text(json.dumps({**document, "arrays": listed}))
    np.savez(folder / "live.npz", **arrays)


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The document without its list of arrays, and the arrays."""
    document = json.loads((folder / "live.json").read_text())
    del document["arrays"]
    with np.load(folder / "live.npz") as stored:
        return document, {key: stored[key] for key in stored.files}
