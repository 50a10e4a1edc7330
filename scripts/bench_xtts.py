"""What does the true-size network of XTTS-v2 take on this machine? `python -m scripts.bench_xtts --json FILE`

A base model of random weights in the true size is made in a temporary folder, fine-tuned for a few steps as a job does
it, written as a voice, and has a piece of text said as inference does it: each in a process of its own, whose memory is
watched. Weights do not change what it takes; what is said is noise. Speech is $VOICE_CORPUS/ljspeech. Needs coqui-tts
(scripts/install-xtts), 12 GB of memory and 20 GB of disk; ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from libs.audio.decode import decode
from libs.audio.encode import write_wav
from libs.audio.resample import resample
from libs.voice.child import TrainingChild
from libs.voice.xtts.network import SAMPLE_RATE
from libs.voice.xtts.process import Order, SpeakingProcess
from libs.voice.xtts.speech import Clip, look
from libs.voice.xtts.vocabulary import read_vocabulary
from scripts.bench import cpu_name
from scripts.stack import PROJECT

TEXT = "Printing, in the only sense with which we are at present concerned, differs from most arts."
SAID_SECONDS = 6.0


def write_clips(speech: Path, wavs: Path) -> list[Clip]:
    """The clips of an LJSpeech folder as ingest leaves them."""
    found: list[Clip] = []
    for line in (speech / "metadata.csv").read_text(encoding="utf-8").splitlines()[:8]:
        name, *_, text = line.split("|")
        sound = decode(next((speech / "wavs").glob(f"{name}.*")))
        wave = resample(sound.wave, sound.sample_rate, SAMPLE_RATE)
        sha256 = f"{len(found):064x}"
        write_wav(wavs / f"{sha256}.wav", wave, SAMPLE_RATE)
        found.append(Clip(name, sha256, name, text, len(wave) / SAMPLE_RATE))
    return found


@contextmanager
def most_memory(pid: int) -> Iterator[dict[str, float]]:
    """The most resident memory of a process within the block, in GB, under `gb`; looked at ten times a second."""
    found, over = {"gb": 0.0}, threading.Event()

    def watch() -> None:
        while not over.wait(0.1):
            try:
                found["gb"] = max(found["gb"], psutil.Process(pid).memory_info().rss / 1e9)
            except psutil.NoSuchProcess:
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


async def fine_tune(python: str, folder: Path, batch: int, steps: int, threads: int) -> dict[str, Any]:
    """The figures of one run of `steps` steps with `batch` clips each; its voice stays in `folder/run-<batch>`."""
    run = folder / f"run-{batch}"
    child = TrainingChild(
        {
            "task": "train",
            "base": str(folder / "base"),
            "checked": str(folder / "checked.json"),
            "wavs": str(folder / "wavs"),
            "run": str(run),
        },
        {
            "language": "en",
            "total_steps": steps,
            "batch_size": batch,
            "threads": threads,
            "device": "cpu",
            "checkpoint_every_seconds": 86_400.0,
        },
        command=[python, "-m", "libs.voice.xtts.main"],
        environment={**os.environ, "PYTHONPATH": str(PROJECT)},
        start_silence=600,
        silence=600,
    )
    begun = time.monotonic()
    await child.start()
    learned: list[tuple[int, float, float]] = []  # a step that is done, when, and after how much processor time
    phases: dict[str, list[float]] = {}
    steps_timed: list[tuple[float, float]] = []
    judged: set[int] = set()  # what is judged and kept between two steps is no part of either
    with most_memory(child.pid) as memory:
        async for line in child.progress():
            now = time.monotonic()
            phases.setdefault(line["phase"], []).append(now)
            if line["phase"] == "train" and line["step"] and (not learned or learned[-1][0] < line["step"]):
                used = psutil.Process(child.pid).cpu_times()
                learned.append((line["step"], now, used.user + used.system))
                if len(learned) > 1 and learned[-2][0] == line["step"] - 1 and learned[-2][0] not in judged:
                    steps_timed.append((now - learned[-2][1], learned[-1][2] - learned[-2][2]))
            elif line["phase"] == "validate":
                judged.add(line["step"])
        outcome = await child.wait()
    if outcome.result is None:
        raise SystemExit(f"the run ended as {outcome.ending}: {outcome.error}")
    figures = {
        "seconds until it learns": round(phases["train"][0] - begun, 1),
        "steps timed": len(steps_timed),
        "seconds per step": round(statistics.median(wall for wall, _ in steps_timed), 2),
        "processor seconds per step": round(statistics.median(used for _, used in steps_timed), 2),
        "seconds to save a checkpoint": round(phases["export"][0] - phases["checkpoint"][0], 1),
        "seconds to write the voice": round(phases["done"][-1] - phases["export"][0], 1),
        "most memory, GB": round(memory["gb"], 1),
        "checkpoint, GB": round(next((run / "checkpoints").glob("*/state.pt")).stat().st_size / 1e9, 2),
        "voice, GB": round((run / "voice.pth").stat().st_size / 1e9, 2),
        "loss": round(float(outcome.result["losses"]["loss"]), 3),
    }
    shutil.rmtree(run / "checkpoints")
    for path in run.glob("best-*.pth"):
        path.unlink()
    return figures


async def speak(python: str, voice: Path, threads: int) -> dict[str, Any]:
    """What a piece of text takes, the first time and when the voice is loaded."""
    os.environ["PYTHONPATH"] = str(PROJECT)
    process = SpeakingProcess(Path(python), threads=threads, limit=600.0)
    order = Order("bench", str(voice), "voice.pth", TEXT, "en", 1.0, 0.65, 0, SAID_SECONDS)
    took, sound = [], 0.0
    try:
        begun = time.monotonic()
        await process.say(order)
        took.append(time.monotonic() - begun)
        assert process.pid is not None
        with most_memory(process.pid) as memory:
            for _ in range(2):
                begun = time.monotonic()
                sound = len((await process.say(order)).wave) / 24_000
                took.append(time.monotonic() - begun)
    finally:
        await process.close()
    spoken = sum(took[1:]) / 2
    return {
        "seconds to start and load": round(took[0] - spoken, 1),
        "seconds of sound": round(sound, 2),
        "seconds to say it": round(spoken, 1),
        "times slower than speech": round(spoken / sound, 1),
        "most memory, GB": round(memory["gb"], 1),
    }


def measure(folder: Path, speech: Path, python: str, steps: int, threads: int) -> dict[str, Any]:
    """All figures; `folder` is empty and has 20 GB of room."""
    base, wavs = folder / "base", folder / "wavs"
    wavs.mkdir(parents=True)
    made = subprocess.run(
        [python, "-m", "scripts.xtts_base", str(base)],
        cwd=PROJECT,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    looked = look(write_clips(speech, wavs), "en", read_vocabulary(base / "vocab.json"))
    clips = [
        {"sample_id": c.sample_id, "sha256": c.sha256, "name": c.name, "text": text, "seconds": c.seconds}
        for c, text in looked.usable
    ]
    (folder / "checked.json").write_text(json.dumps({"clips": clips}))
    figures: dict[str, Any] = {
        "parameters": json.loads(made.stdout.splitlines()[-1]),
        "threads": threads,
        "steps": steps,
        "clips": len(clips),
    }
    for batch in (1, 2):
        figures[f"training, {batch} at once"] = asyncio.run(fine_tune(python, folder, batch, steps, threads))
    figures["speaking"] = asyncio.run(speak(python, folder / "run-2", threads))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench_xtts", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, default=PROJECT / "var/bench/xtts.json", help="where the figures go")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()
    corpus = os.environ.get("VOICE_CORPUS")
    if not corpus:
        parser.error("VOICE_CORPUS has to name a folder with ljspeech/")
    python = os.environ.get("XTTS_PYTHON") or str(PROJECT / ".venv-xtts/bin/python")
    before, begun = os.getloadavg()[0], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="bench-xtts-") as folder:
        figures = measure(Path(folder) / "all", Path(corpus) / "ljspeech", python, options.steps, options.threads)
    about = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} × {cpu_name()}, Python {platform.python_version()}",
        "load": [round(before, 1), round(os.getloadavg()[0], 1)],
        "seconds": round(time.monotonic() - begun),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(about | figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    json.dump(about | figures, sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
