"""How much faster are content features and pitch of a folder than one clip after the other in plain settings?

    python -m scripts.bench_features [--seconds 120] [--rounds 3] [--long HOURS]

Plain: one process with all cores, one clip at a time, networks as loaded. Ours: a process per core with one thread,
clips in batches, weights packed, norms folded. All in one run, in turn and several times, after a warm-up, loading not
counted. Processor time is told beside wall time, because it does not depend on what else the machine does. HuBERT and
RMVPE have random weights of the public models' sizes, made here: speed does not depend on their values.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from libs.common.processes import share_cores
from libs.voice.preparation import GROUP_SAMPLES

Job = Callable[[list[Any]], list[Any]]
_state: dict[str, Any] = {}

CASES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "HuBERT base": ("hubert plain", "hubert", ("hubert bf16",)),
    "built-in encoder": ("small plain", "small", ("small bf16",)),
    "RMVPE": ("rmvpe plain", "rmvpe", ("rmvpe bf16",)),
    "SwiftF0": ("swift plain", "swift", ()),
    "HuBERT base and RMVPE": ("both plain", "both", ("both bf16",)),
    "as shipped (built-in encoder, SwiftF0)": ("shipped plain", "shipped", ()),
}


def job_of(kind: str, work: Path) -> Job:
    """What a worker does with its waves, one by one for `… plain`, together otherwise."""
    import torch

    from libs.voice.content import ContentEncoder, HubertEncoder, encode_batch
    from libs.voice.content_small import SmallContentEncoder
    from libs.voice.hubert import load_hubert
    from libs.voice.pitch import Pitch
    from libs.voice.rmvpe import Rmvpe, load_rmvpe, network_of
    from libs.voice.safe_load import load_tensors

    name, _, form = kind.partition(" ")
    plain = form == "plain"
    dtype = torch.bfloat16 if form == "bf16" else torch.float32

    def features() -> Job:
        encoder: ContentEncoder
        if name in ("hubert", "both"):
            encoder = HubertEncoder(load_hubert(work / "hubert_base.pt"), "0" * 64, dtype=dtype, packed=not plain)
        else:
            encoder = SmallContentEncoder(packed=not plain, dtype=dtype)
        return lambda waves: [encoder.encode(wave) for wave in waves] if plain else encode_batch(encoder, waves)

    def rmvpe_f0() -> Job:
        file = work / "rmvpe.pt"
        model = Rmvpe(network_of(load_tensors(file))) if plain else load_rmvpe(file, dtype=dtype)
        return lambda waves: [model.f0(wave) for wave in waves] if plain else model.f0_batch(waves)

    def swift_f0() -> Job:
        pitch = Pitch(threads=(os.cpu_count() or 1) if plain else 1)
        return lambda waves: [pitch.f0(wave, "swift") for wave in waves]

    parts = {"rmvpe": [rmvpe_f0], "swift": [swift_f0], "both": [features, rmvpe_f0], "shipped": [features, swift_f0]}
    jobs = [part() for part in parts.get(name, [features])]
    return lambda waves: [found for job in jobs for found in job(waves)]


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
    found = [result for group in groups(waves) for result in _state["job"](group)]
    assert len(found) >= len(files)
    return time.process_time() - began


def groups(waves: list[Any]) -> Iterator[list[Any]]:
    """About a minute of sound at a time, as the preparation computes it."""
    group: list[Any] = []
    for wave in waves:
        group.append(wave)
        if sum(map(len, group)) >= GROUP_SAMPLES:
            yield group
            group = []
    if group:
        yield group


def ready(_: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def timed(kind: str, work: Path, files: list[Path]) -> tuple[float, float]:
    """Wall and processor seconds of `kind` over all `files`."""
    cores = os.cpu_count() or 1
    workers, threads = (1, cores) if kind.endswith("plain") else (cores, 1)
    shares = [files[i::workers] for i in range(workers)]
    with ProcessPoolExecutor(workers, get_context("spawn"), begin, (kind, threads, work, files)) as pool:
        while len(set(pool.map(ready, range(2 * workers)))) < workers:
            pass
        began = time.perf_counter()
        spent = sum(pool.map(run, shares))
        return time.perf_counter() - began, spent


def pieces(work: Path, seconds: float) -> list[Path]:
    """The pieces of a real folder at 16 kHz: recordings of $VOICE_CORPUS as the slicer cuts them, else made speech."""
    import soundfile

    from libs.voice.slicing import slice_recording
    from scripts.measure_pitch import real_speech, voice

    waves = real_speech(40) or [voice(12.0, 100, 300, seed)[0] for seed in range(int(seconds / 12) + 1)]
    files: list[Path] = []
    left = seconds
    for wave in itertools.cycle(waves):
        for piece in slice_recording(wave, 16000):
            if left <= 0:
                return files
            files.append(work / f"piece-{len(files)}.wav")
            soundfile.write(files[-1], piece.wave16k, 16000, subtype="FLOAT")
            left -= len(piece.wave16k) / 16000
    return files


def write_models(work: Path) -> None:
    """Random weights of the public models' sizes, in their file formats."""
    import torch

    from libs.voice.hubert import Hubert, HubertConfig
    from libs.voice.rmvpe import RmvpeNetwork

    torch.manual_seed(0)
    torch.save({"model": Hubert(HubertConfig()).state_dict()}, work / "hubert_base.pt")
    torch.save(RmvpeNetwork().state_dict(), work / "rmvpe.pt")


def measure(work: Path, seconds: float = 120.0, rounds: int = 3) -> dict[str, object]:
    """Medians over `rounds` of each case's seconds, and ratios; `work` is a folder for pieces and models (0.8 GB)."""
    work.mkdir(parents=True, exist_ok=True)
    files = pieces(work, seconds)
    write_models(work)
    figures: dict[str, object] = {"seconds of sound": seconds, "pieces": len(files), "cores": os.cpu_count()}
    for name, (plain, ours, others) in CASES.items():
        kinds = (plain, ours, *others)
        found = [[timed(kind, work, files) for kind in kinds] for _ in range(rounds)]
        walls, spent = (np.median([[run[i] for run in turn] for turn in found], axis=0) for i in (0, 1))
        for kind, wall, processor in zip(kinds, walls, spent, strict=True):
            label = f"{name}, plain" if kind == plain else name if kind == ours else f"{name} in bfloat16"
            figures[f"{label}, wall s"] = round(float(wall), 2)
            figures[f"{label}, processor s"] = round(float(processor), 2)
            if kind != plain:
                figures[f"{label}, times faster"] = round(float(walls[0] / wall), 2)
                figures[f"{label}, times less processor time"] = round(float(spent[0] / processor), 2)
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
    parser.add_argument("--rounds", type=int, default=3, help="of which the median is told")
    options = parser.parse_args()
    share_cores()
    with tempfile.TemporaryDirectory(prefix="bench-features-") as folder:
        work = Path(folder)
        figures = measure_long(work, options.long) if options.long else measure(work, options.seconds, options.rounds)
    figures["own greatest memory, MiB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps(figures, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
