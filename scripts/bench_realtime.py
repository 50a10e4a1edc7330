"""How fast is a live conversion, block by block? `python -m scripts.bench_realtime`

Voices with random weights: a network takes as long whatever it has learned. Sound is a glide with noise; the encoder is
the one that is installed with the program, and once a HuBERT of the base size, which RVC's own voices need.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

# Before torch is imported: threads that wait give their core away (docs/decisions/0045).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from numpy.typing import NDArray

from libs.voice.content import ContentEncoder, HubertEncoder, load_content_encoder
from libs.voice.hubert import Hubert, HubertConfig
from libs.voice.lite import LiteSynthesizer
from libs.voice.pitch import Pitch
from libs.voice.realtime import RealtimeConverter, RealtimeSettings
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork
from libs.voice.rvc.voice import RvcSynthesizer
from libs.voice.synthesizer import Synthesizer

BLOCKS = 16
INPUT_RATE = 48_000
SHORT = {"block_seconds": 0.05, "crossfade_seconds": 0.02, "extra_seconds": 1.0}


def measure(work: Path) -> dict[str, object]:
    """Milliseconds per block and real-time factor of each voice; `work` is not needed, nothing is written.

    `processor_ms`: of all cores together, which other work on the machine does not change. `late_share`: blocks that
    took longer than they last, which a listener hears as a gap.
    """
    torch.manual_seed(0)
    small = load_content_encoder(None)
    cases: list[tuple[str, Synthesizer, ContentEncoder, dict[str, Any]]] = [
        ("lite", LiteSynthesizer().eval(), small, {}),
        ("lite, blocks of 50 ms", LiteSynthesizer().eval(), small, SHORT),
        ("rvc-tiny", _rvc("rvc-tiny"), small, {}),
        ("rvc-v2-40k", _rvc("rvc-v2-40k"), small, {}),
        ("rvc-v2-40k, 0.5 s of context", _rvc("rvc-v2-40k"), small, {"extra_seconds": 0.5}),
        ("rvc-v2-40k, HuBERT base", _rvc("rvc-v2-40k"), _hubert(), {}),
        ("rvc-v2-40k, HuBERT base, 0.5 s of context", _rvc("rvc-v2-40k"), _hubert(), {"extra_seconds": 0.5}),
        ("rvc-v2-40k, HuBERT base, blocks of 1 s", _rvc("rvc-v2-40k"), _hubert(), {"block_seconds": 1.0}),
    ]
    voices = {}
    for name, voice, encoder, more in cases:
        settings = RealtimeSettings(input_rate=INPUT_RATE, **more)
        voices[name] = _measure_one(RealtimeConverter(voice, encoder, Pitch(), settings=settings))
    return {"threads": torch.get_num_threads(), "blocks": BLOCKS, "input_rate": INPUT_RATE, "voices": voices}


def _measure_one(converter: RealtimeConverter) -> dict[str, float]:
    converter.warm_up()
    block_seconds = converter.settings.block_seconds
    wave = _speechlike(BLOCKS * converter.block_samples)
    taken, worked = [], []
    for block in wave.reshape(BLOCKS, -1):
        began, began_work = time.perf_counter(), time.process_time()
        converter.process(block)
        taken.append(time.perf_counter() - began)
        worked.append(time.process_time() - began_work)
    median = statistics.median(taken)
    return {
        "block_ms": round(1000 * block_seconds),
        "median_ms": round(1000 * median, 1),
        "p95_ms": round(1000 * float(np.percentile(taken, 95)), 1),
        "processor_ms": round(1000 * statistics.median(worked), 1),
        "real_time_factor": round(median / block_seconds, 3),
        "late_share": round(sum(each > block_seconds for each in taken) / BLOCKS, 3),
        "algorithmic_latency_ms": round(1000 * converter.latency_seconds),
        "latency_ms": round(1000 * (converter.latency_seconds + median)),
    }


def _rvc(preset: str) -> RvcSynthesizer:
    return RvcSynthesizer(SynthesizerNetwork(CONFIGS[preset], with_posterior=False), torch.device("cpu"))


def _hubert() -> HubertEncoder:
    return HubertEncoder(Hubert(HubertConfig()).eval().requires_grad_(False), "0" * 64)


def _speechlike(samples: int) -> NDArray[np.float32]:
    """A voice-like glide with overtones and some noise, in -1…1."""
    moment = np.arange(samples) / INPUT_RATE
    phase = 2 * np.pi * np.cumsum(150 + 40 * np.sin(2 * np.pi * 0.7 * moment)) / INPUT_RATE
    tone = sum(np.sin(k * phase) / k for k in range(1, 12))
    noise = np.random.default_rng(0).standard_normal(samples)
    return np.asarray(0.1 * tone + 0.005 * noise, dtype=np.float32)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(Path(folder)), indent=1))
