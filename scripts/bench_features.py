"""How much faster are content features and pitch of a folder than one clip after the other in plain settings?

    python -m scripts.bench_features [--seconds 120] [--long HOURS]

Plain: one process with all cores, one clip at a time, networks as loaded. Ours: a process per core with one thread,
clips in batches, weights packed, norms folded. Both in one run, after a warm-up, loading not counted. Processor time is
told beside wall time, because it does not depend on what else the machine does. HuBERT and RMVPE have random weights of
the public models' sizes, made here: speed does not depend on their values.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from libs.common.processes import share_cores

PIECE_SECONDS = 3.0
Job = Callable[[list[Any]], list[Any]]
_state: dict[str, Any] = {}

CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "HuBERT base": ("hubert plain", "hubert", ("hubert bf16",)),
    "built-in encoder": ("small plain", "small", ()),
    "RMVPE": ("rmvpe plain", "rmvpe", ()),
    "SwiftF0": ("swift plain", "swift", ()),
    "as shipped (built-in encoder, SwiftF0)": ("shipped plain", "shipped", ()),
}


def job_of(kind: str, work: Path) -> Job:
    """What a worker does with its waves, one by one for `… plain`, together otherwise."""
    import torch

    from libs.voice.content import ContentEncoder, HubertEncoder
    from libs.voice.content_small import SmallContentEncoder
    from libs.voice.hubert import load_hubert
    from libs.voice.pitch import Pitch
    from libs.voice.rmvpe import Rmvpe, load_rmvpe, network_of
    from libs.voice.safe_load import load_tensors

    name, _, form = kind.partition(" ")
    plain = form == "plain"
    if name == "rmvpe":
        file = work / "rmvpe.pt"
        model = Rmvpe(network_of(load_tensors(file))) if plain else load_rmvpe(file)
        return lambda waves: [model.f0(wave) for wave in waves] if plain else list(model.f0_batch(waves))
    pitch = Pitch(threads=(os.cpu_count() or 1) if plain else 1)
    if name == "swift":
        return lambda waves: [pitch.f0(wave, "swift") for wave in waves]
    encoder: ContentEncoder
    if name == "hubert":
        dtype = torch.bfloat16 if form == "bf16" else torch.float32
        encoder = HubertEncoder(load_hubert(work / "hubert_base.pt"), "0" * 64, dtype=dtype, packed=not plain)
    else:
        encoder = SmallContentEncoder(packed=not plain)

    def features(waves: list[Any]) -> list[Any]:
        return [encoder.encode(wave) for wave in waves] if plain else encoder.encode_batch(waves)

    if name == "shipped":
        return lambda waves: [*features(waves), *(pitch.f0(wave, "swift") for wave in waves)]
    return features


def begin(kind: str, threads: int, work: Path, files: list[Path]) -> None:
    """Prepares a worker: threads, model, one warm-up."""
    import torch

    torch.set_num_threads(threads)
    _state["job"] = job_of(kind, work)
    run(files[:2])


def run(files: list[Path]) -> float:
    """One share of the pieces, read from the disk as the stages of a preparation do; processor seconds."""
    import soundfile

    began = time.process_time()
    waves = [soundfile.read(file, dtype="float32")[0] for file in files]
    found = _state["job"](waves)
    assert len(found) >= len(files)
    return time.process_time() - began


def ready(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def timed(kind: str, work: Path, files: list[Path]) -> tuple[float, float]:
    """Wall and processor seconds of `kind` over all `files`."""
    cores = os.cpu_count() or 1
    workers, threads = (1, cores) if kind.endswith("plain") else (cores, 1)
    shares = [files[i :: 4 * workers] for i in range(4 * workers)] if workers > 1 else [files]
    with ProcessPoolExecutor(workers, get_context("spawn"), begin, (kind, threads, work, files)) as pool:
        while len(set(pool.map(ready, range(2 * workers)))) < workers:
            pass
        began = time.perf_counter()
        spent = sum(pool.map(run, shares))
        return time.perf_counter() - began, spent


def pieces(work: Path, seconds: float) -> list[Path]:
    """Pieces at 16 kHz as the slicer leaves them: most of full length, every fifth shorter."""
    import soundfile

    from scripts.measure_pitch import real_speech, voice

    waves = real_speech(40) or [voice(12.0, 100, 300, seed)[0] for seed in range(int(seconds / 12) + 1)]
    sound = np.resize(np.concatenate(waves), int(seconds * 16000))
    files: list[Path] = []
    at = 0
    while at < len(sound) - 16000:
        length = int(16000 * (PIECE_SECONDS if len(files) % 5 else 0.6 + 0.3 * (len(files) % 7)))
        files.append(work / f"piece-{len(files)}.wav")
        soundfile.write(files[-1], sound[at : at + length], 16000, subtype="FLOAT")
        at += length
    return files


def write_models(work: Path) -> None:
    """Random weights of the public models' sizes, in their file formats."""
    import torch

    from libs.voice.hubert import Hubert, HubertConfig
    from libs.voice.rmvpe import RmvpeNetwork

    torch.manual_seed(0)
    torch.save({"model": Hubert(HubertConfig()).state_dict()}, work / "hubert_base.pt")
    torch.save(RmvpeNetwork().state_dict(), work / "rmvpe.pt")


def measure(work: Path, seconds: float = 120.0) -> dict[str, object]:
    """Seconds and ratios of each case; `work` is a folder for pieces and models (0.8 GB)."""
    work.mkdir(parents=True, exist_ok=True)
    files = pieces(work, seconds)
    write_models(work)
    figures: dict[str, object] = {"seconds of sound": seconds, "pieces": len(files), "cores": os.cpu_count()}
    for name, (plain, ours, others) in CASES.items():
        wall, spent = timed(plain, work, files)
        figures[f"{name}, plain, wall s"] = round(wall, 2)
        figures[f"{name}, plain, processor s"] = round(spent, 2)
        for kind in (ours, *others):
            label = name if kind == ours else f"{name} in bfloat16"
            our_wall, our_spent = timed(kind, work, files)
            figures[f"{label}, wall s"] = round(our_wall, 2)
            figures[f"{label}, processor s"] = round(our_spent, 2)
            figures[f"{label}, times faster"] = round(wall / our_wall, 2)
            figures[f"{label}, times less processor time"] = round(spent / our_spent, 2)
            figures[f"{label}, × real time on all cores"] = round(seconds / our_wall, 1)
    return figures


LONG = """
import resource, sys, time
from pathlib import Path
from libs.common.processes import share_cores
share_cores()
import numpy as np, torch
torch.set_num_threads(1)
from libs.voice import preparation
from libs.voice.content import load_content_encoder
from libs.voice.experiment import ExperimentFolders
from libs.voice.pitch import Pitch

class NoPitch(Pitch):
    def f0(self, wave16k, method="auto"):
        return np.zeros(len(wave16k) // 160 + 1, np.float32)

class NoContent:
    name, checksum, width = "none", "0" * 64, 768
    def encode(self, wave16k):
        return np.zeros(((len(wave16k) - 400) // 320 + 1, 1), np.float32)

whole = sys.argv[3] == "whole"
encoder, pitch = (load_content_encoder(None), Pitch()) if whole else (NoContent(), NoPitch())
preparation._store = lambda *_: None
began = time.perf_counter()
result = preparation.prepare_recording(
    Path(sys.argv[1]), 0, ExperimentFolders(Path(sys.argv[2])), preparation.PreparationSettings(), encoder, pitch
)
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(result.pieces), result.seconds_in, time.perf_counter() - began, memory)
"""


def measure_long(work: Path, hours: float) -> dict[str, object]:
    """Time and greatest memory of cutting one very long recording (8 kHz source, 40 kHz pieces, nothing stored)."""
    import soundfile

    work.mkdir(parents=True, exist_ok=True)
    draw, path = np.random.default_rng(0), work / "long.wav"
    gate = np.repeat([1.0, 1.0, 1.0, 0.0, 1.0, 1.0], 80_000)
    minute = 0.1 * gate * draw.standard_normal(480_000)
    with soundfile.SoundFile(path, "w", 8000, 1, "PCM_16") as file:
        for _ in range(int(60 * hours)):
            file.write(np.roll(minute, draw.integers(480_000)))
    command = [sys.executable, "-c", LONG, str(path), str(work / "experiment"), "cut"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path.unlink()
    found, seconds, took, memory = done.stdout.split()
    return {
        "hours of sound": float(seconds) / 3600,
        "pieces": int(found),
        "seconds": round(float(took), 1),
        "greatest memory, MiB": int(memory),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0, help="of sound")
    parser.add_argument("--long", type=float, help="instead: cut one recording of so many hours")
    options = parser.parse_args()
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        work = Path(folder)
        figures = measure_long(work, options.long) if options.long else measure(work, options.seconds)
    figures["own greatest memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
