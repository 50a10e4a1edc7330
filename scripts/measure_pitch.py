"""How exact, how robust and how fast is each pitch method? Exact synthetic truth, noise, octave errors, speed.

    python -m scripts.measure_pitch [--out FILE.json] [--seconds 4] [--methods swift,crepe-tiny] [--rmvpe rmvpe.pt]

The truth is exact because the voices are made from it: pulse trains that glide, through vowel resonances, with
consonant-like noise and silence between. With VOICE_CORPUS set, agreement with Praat on real speech is added.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import scipy.signal
import torch
from numpy.typing import NDArray

from libs.common.errors import InvalidInput
from libs.voice.pitch import HOP, SAMPLE_RATE, Pitch

VOWELS = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480))
RANGES = {"low": (70, 140), "middle": (130, 280), "high": (220, 520)}
METHODS = "rmvpe,swift,crepe,crepe-tiny,dio,harvest,praat,hybrid[swift+dio+praat],hybrid[swift+crepe-tiny+dio]"
LEVELS = {"clean": None, "20 dB": 20.0, "10 dB": 10.0, "0 dB": 0.0}


def voice(seconds: float, low: float, high: float, seed: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """A gliding voice at 16 kHz and its true F0 per 10 ms (0 where unvoiced)."""
    rng = np.random.default_rng(seed)
    length = int(seconds * SAMPLE_RATE)
    knots = rng.uniform(np.log2(low), np.log2(high), int(seconds * 3) + 2)
    f0 = 2 ** np.interp(np.arange(length), np.linspace(0, length, len(knots)), knots)
    phase = np.cumsum(f0) / SAMPLE_RATE
    tilt = np.zeros(length)
    for k in range(1, int(7600 / low) + 1):
        tilt += np.where(k * f0 < 7600, np.cos(2 * np.pi * k * phase), 0) / k
    wave = tilt
    for formant in VOWELS[seed % len(VOWELS)]:
        r = np.exp(-np.pi * 90 / SAMPLE_RATE)
        wave = (
            scipy.signal.lfilter([1 - r], [1, -2 * r * np.cos(2 * np.pi * formant / SAMPLE_RATE), r * r], wave)
            + 0.1 * wave
        )
    wave = 0.2 * wave / np.sqrt(np.mean(wave**2))
    voiced = np.ones(length, dtype=bool)
    noise = np.zeros(length)
    at = int(0.3 * SAMPLE_RATE)
    while at < length:
        gap = int(rng.uniform(0.06, 0.25) * SAMPLE_RATE)
        voiced[at : at + gap] = False
        if rng.random() < 0.6:
            n = len(noise[at : at + gap])
            noise[at : at + gap] = scipy.signal.lfilter([1, -0.9], [1], rng.standard_normal(n)) * 0.05
        at += gap + int(rng.uniform(0.25, 0.8) * SAMPLE_RATE)
    gate = scipy.signal.filtfilt(np.ones(80) / 80, [1], voiced.astype(float))
    return (wave * gate + noise).astype(np.float32), np.where(voiced, f0, 0.0)[::HOP]


def score(found: NDArray[np.floating], truth: NDArray[np.float64]) -> dict[str, float]:
    """Median cents on frames voiced in both; shares of gross (> 50 cents), octave, missed and false frames."""
    found = np.asarray(found[: len(truth)], dtype=np.float64)
    both = (found > 0) & (truth > 0)
    octaves = np.log2(found[both] / truth[both])
    return {
        "cents": float(np.median(np.abs(octaves)) * 1200) if both.any() else float("nan"),
        "gross": float(np.mean(np.abs(octaves) > 50 / 1200)) if both.any() else 1.0,
        "octave": float(np.mean(np.abs(octaves) > 0.7)) if both.any() else 1.0,
        "missed": float(np.mean(found[truth > 0] == 0)),
        "false": float(np.mean(found[truth == 0] > 0)) if (truth == 0).any() else 0.0,
    }


def real_speech(limit: int) -> list[NDArray[np.float32]]:
    """Some recordings of the corpus at 16 kHz, or none."""
    root = os.environ.get("VOICE_CORPUS")
    if not root:
        return []
    from libs.audio.decode import decode
    from libs.audio.resample import resample

    paths = sorted(p for p in Path(root).rglob("*") if p.suffix in {".wav", ".flac", ".ogg", ".opus"})
    waves = []
    for path in paths[:: max(1, len(paths) // limit)][:limit]:
        sound = decode(path)
        waves.append(resample(sound.wave, sound.sample_rate, SAMPLE_RATE))
    return waves


def main() -> None:
    """Measure all installed methods and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of each synthetic voice")
    parser.add_argument("--voices", type=int, default=4, help="synthetic voices per range")
    parser.add_argument("--methods", default=METHODS, help="comma-separated")
    parser.add_argument("--rmvpe", type=Path, help="where rmvpe.pt is")
    parser.add_argument("--real", type=int, default=24, help="recordings of $VOICE_CORPUS to compare with Praat")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    pitch = Pitch(arguments.rmvpe, threads=1)
    methods = []
    for method in arguments.methods.split(","):
        try:
            methods.append(pitch.resolve(method))
        except InvalidInput as absent:
            print(f"left out: {absent}")
    rng = np.random.default_rng(0)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for method in methods:
        rows[method] = {}
        pitch.f0(np.zeros(16000, dtype=np.float32), method)
        for level_name, level in LEVELS.items():
            scores, spent, total = [], 0.0, 0.0
            for low, high in RANGES.values():
                for seed in range(arguments.voices):
                    wave, truth = voice(arguments.seconds, low, high, seed)
                    if level is not None:
                        power = np.mean(wave**2) / 10 ** (level / 10)
                        wave = wave + (rng.standard_normal(len(wave)) * np.sqrt(power)).astype(np.float32)
                    started = time.process_time()
                    found = pitch.f0(wave, method)
                    spent += time.process_time() - started
                    total += arguments.seconds
                    scores.append(score(found, truth))
            rows[method][level_name] = {k: float(np.mean([s[k] for s in scores])) for k in scores[0]}
            rows[method][level_name]["times_real_time"] = total / spent
    waves = real_speech(arguments.real) if arguments.real else []
    if waves and "praat" in methods:
        reference = [pitch.f0(wave, "praat").astype(np.float64) for wave in waves]
        for method in (m for m in methods if m != "praat"):
            tracks = [pitch.f0(wave, method) for wave in waves]
            # All frames together: a clip with ten voiced frames shall not count as much as one with ten thousand.
            rows[method]["real, against praat"] = score(np.concatenate(tracks), np.concatenate(reference))
    print(f"{'method':30} condition             cents  gross%  octave%  missed%  false%  x real/core")
    for method, conditions in rows.items():
        for name, row in conditions.items():
            speed = row.get("times_real_time")
            print(
                f"{method:30} {name:20} {row['cents']:6.1f} {100 * row['gross']:7.2f} {100 * row['octave']:8.2f} "
                f"{100 * row['missed']:8.2f} {100 * row['false']:7.2f} {'' if speed is None else f'{speed:7.1f}'}"
            )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
