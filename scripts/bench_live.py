"""How long does a voice take through the whole live path? `python -m scripts.bench_live`

Gateway and inference as processes of their own, a WebSocket through both, blocks sent as fast as they would be spoken.
The voice has random weights: a network takes as long whatever it has learned.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

# Before torch is imported: threads that wait give their core away (docs/decisions/0045).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from libs.client.api import Client
from libs.client.live import LiveConversion
from libs.voice.artefact import write_voice
from libs.voice.recipe import build_recipe
from libs.voice.training_config import TrainingConfig
from scripts.stack import Stack

RATE = 48_000
SECONDS = 12.0
SETTINGS: tuple[dict[str, float], ...] = (
    {"block_seconds": 0.25},
    {"block_seconds": 0.1},
    {"block_seconds": 0.05, "crossfade_seconds": 0.02, "extra_seconds": 1.0},
    {"block_seconds": 0.04, "crossfade_seconds": 0.07, "extra_seconds": 0.5},
)
"""The usual, shorter blocks, the least delay, and the best sound of a short delay, as more of the future is heard
(docs/live.md). The last two hear less of the past anew with each block."""


def measure(work: Path) -> dict[str, object]:
    """Milliseconds from a block's last sample being sent to its answer, by settings; a platform in `work`.

    `heard_after_ms` is what a listener waits for a sound, devices and network aside: the block itself, the crossfade,
    and the median way through gateway, inference and back.
    """
    weights = work / "bench.pth"
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    made, config = build_recipe("lite", TrainingConfig(preset="lite", seed=0), torch.device("cpu")).export()
    write_voice(weights, made, config)
    with Stack(work / "stack") as stack, Client(stack.url("gateway")) as client:
        client.login(stack.secrets["ADMIN_EMAIL"], stack.secrets["ADMIN_PASSWORD"])
        voice = client.wait(client.import_voice(weights, "Bench")).voice or ""
        return {"voice": "lite", "input_rate": RATE, "blocks": [_one(client, voice, each) for each in SETTINGS]}


def _one(client: Client, voice: str, settings: dict[str, float]) -> dict[str, float]:
    wave, block_seconds = _speechlike(round(SECONDS * RATE)), settings["block_seconds"]
    with LiveConversion(client, voice, RATE, **settings) as live:
        size = live.ready["block_samples"]
        latency = live.ready["latency_seconds"]
        blocks = wave[: len(wave) // size * size].reshape(-1, size)
        sent, back = [], []
        begun = time.perf_counter()
        for number, block in enumerate(blocks):
            # A block can be sent when its last sample was spoken.
            time.sleep(max(0.0, begun + (number + 1) * block_seconds - time.perf_counter()))
            sent.append(time.perf_counter())
            live.send(block.tobytes())
            for _ in live.received():
                back.append(time.perf_counter())
            while len(back) < len(sent) and time.perf_counter() < sent[-1] + 0.9 * block_seconds:
                time.sleep(0.0005)
                back += [time.perf_counter() for _ in live.received()]
        live.end()
        back += [time.perf_counter() for _ in live.received(wait=True)]
        stats = live.stats
    ways = [1000 * (there - here) for here, there in zip(sent, back, strict=False)]
    return {
        "block_ms": round(1000 * block_seconds),
        "blocks": len(sent),
        "way_median_ms": round(statistics.median(ways), 1),
        "way_p95_ms": round(float(np.percentile(ways, 95)), 1),
        "computing_mean_ms": stats["block_ms"]["mean"],
        "algorithmic_latency_ms": round(1000 * latency, 1),
        "heard_after_ms": round(1000 * latency + statistics.median(ways), 1),
        "dropped": stats["dropped_blocks"],
    }


def _speechlike(samples: int) -> NDArray[np.int16]:
    """A voice-like glide with overtones and some noise, 16 bit."""
    moment = np.arange(samples) / RATE
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.7 * moment)) / RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(samples)
    return np.asarray(3000 * tone + 150 * noise, dtype=np.int16)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=1))
