"""`make bench`: how fast is the platform on this machine? JSON in var/bench/<date>.json, and a table.

Runs a platform of its own under var/bench. Speech is that of the demo ($VOICE_CORPUS or espeak-ng). Each figure is
measured through the public API as a user meets it, except memory: the resident sets of each service. Then come the
parts of the engine (scripts/bench_*.py), each in a process of its own: our way beside the plain way, ratios of one run.
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
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
from rich.table import Table

from libs.client.api import Client
from libs.client.cli import send_files
from libs.client.models import Dataset, FeedEvent, Job
from libs.client.terminal import out
from scripts import speech
from scripts.stack import PROJECT, SERVICES, Stack

ROOT = PROJECT / "var" / "bench"
BATCH, BATCH_SECONDS = 102, 60
READERS, READ_SECONDS = 50, 10.0
ENGINE = ("features", "index", "conversion", "realtime", "live", "training")

Figures = dict[str, Any]


def make_batch(folder: Path) -> list[Path]:
    """102 different MP3 files of 60 s of speech each; made once."""
    import numpy as np

    from libs.audio.decode import decode
    from libs.audio.encode import write_encoded
    from libs.audio.resample import resample

    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.mp3" for number in range(BATCH)]
    if all(path.exists() for path in paths):
        return paths
    recordings, _ = speech.synthetic(ROOT / "speech")
    sounds = [decode(path) for path in recordings]
    rate = 44_100
    wave = np.concatenate([resample(sound.wave, sound.sample_rate, rate) for sound in sounds])
    wave = np.tile(wave, 2)
    for number, path in enumerate(paths):
        start = number * rate  # each begins a second later than the one before: no two are the same file
        write_encoded(path, wave[start : start + BATCH_SECONDS * rate], rate, "mp3")
    return paths


def memory(stack: Stack) -> Figures:
    """Resident megabytes of each idle service, with its child processes."""
    time.sleep(5)
    figures: Figures = {}
    for service in (*SERVICES, "nats"):
        process = psutil.Process(stack.pid(service))
        family = [process, *process.children(recursive=True)]
        figures[f"idle memory of {service}, MB"] = round(sum(one.memory_info().rss for one in family) / 1e6, 1)
    return figures


def ingest_batch(client: Client) -> Figures:
    """One batch of 102 files of a minute, four requests at a time, as `voicewright upload` sends them."""
    files = make_batch(ROOT / "batch")
    dataset = client.ensure_dataset(f"bench batch {time.time():.0f}")
    began = time.monotonic()
    kept, rejected = send_files(client, files, dataset.id, 4)
    took = time.monotonic() - began
    client.delete_dataset(dataset.id)
    if rejected or kept != BATCH:
        raise RuntimeError(f"{len(rejected)} files of the batch were refused: {rejected[:1]}")
    return {
        "ingest of 102 × 60 s mp3, s": round(took, 1),
        "ingest, × real time": round(BATCH * BATCH_SECONDS / took, 1),
    }


def timed(client: Client, job: Job, phase: str) -> tuple[Job, float, list[float]]:
    """Waits for a job: how long `phase` took by the events' arrival, and the speeds that it reported."""
    seen: list[float] = []
    speeds: list[float] = []

    def told(event: FeedEvent) -> None:
        data = event.data.get("job", event.data)
        if event.kind == "progress" and data.get("step") == phase:
            seen.append(time.monotonic())
            if data.get("steps_per_second"):
                speeds.append(float(data["steps_per_second"]))

    done = client.wait(job, told=told)
    return done, (seen[-1] - seen[0]) if len(seen) > 1 else float("nan"), speeds


def preparation(client: Client, dataset: Dataset) -> Figures:
    """A whole preprocess job, from its start to its end."""
    done, _, _ = timed(client, client.add_preprocess_job(dataset.id), "preprocess")
    assert done.started_at is not None
    assert done.finished_at is not None
    took = (done.finished_at - done.started_at).total_seconds()
    return {"preprocess, × real time": round(dataset.duration_seconds / took, 2)}


def training(client: Client, dataset: Dataset, preset: str, **options: Any) -> tuple[Figures, str]:
    """Steps per second as the run reports them, without its first measurements."""
    job = client.add_training_job(dataset.id, preset=preset, name=f"bench {preset}", **options)
    done, _, speeds = timed(client, job, "train")
    assert done.voice is not None
    settled = speeds[len(speeds) // 4 :]
    return {f"training {preset}, steps/s": round(statistics.median(settled), 2) if settled else None}, done.voice


def conversion(client: Client, voice: str, source: Path) -> Figures:
    """The second of two conversions: the first loads the voice."""
    walls, factors = [], []
    for _ in range(3):
        began = time.monotonic()
        made = client.convert(source, voice, ROOT / "converted.wav", index_rate=0.5)
        wall = time.monotonic() - began
        if made.duration_seconds:
            walls.append(wall / made.duration_seconds)
        if made.real_time_factor:
            factors.append(made.real_time_factor)
    return {
        "conversion, real-time factor": round(min(factors[1:] or factors), 4) if factors else None,
        "conversion with upload and download, real-time factor": round(min(walls[1:]), 4) if walls else None,
    }


async def reads(url: str, token: str, job_id: str) -> Figures:
    """50 clients that read one job again and again for ten seconds: milliseconds until the whole answer is there.

    Each client is a bare connection: a comfortable client library would use more of the processor than the gateway
    does, and its own queue would be what is measured.
    """
    address = httpx.URL(url)
    request = (
        f"GET /api/v1/training/jobs/{job_id} HTTP/1.1\r\nHost: {address.host}\r\nAuthorization: Bearer {token}\r\n\r\n"
    ).encode()
    times: list[float] = []
    end = time.monotonic() + READ_SECONDS

    async def reader() -> None:
        incoming, outgoing = await asyncio.open_connection(address.host, address.port)
        while time.monotonic() < end:
            began = time.perf_counter()
            outgoing.write(request)
            head = await incoming.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200 "):
                raise RuntimeError(f"a job could not be read: {head.decode(errors='replace')}")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await incoming.readexactly(int(length.partition(b":")[2]))
            times.append(1000 * (time.perf_counter() - began))
        outgoing.close()

    await asyncio.gather(*(reader() for _ in range(READERS)))
    cuts = statistics.quantiles(times, n=100)
    return {
        "job reads with 50 clients, per s": round(len(times) / READ_SECONDS),
        **{f"job reads with 50 clients, p{p} ms": round(cuts[p - 1], 1) for p in (50, 95, 99)},
    }


def demo_stages() -> Figures:
    """The stages of the last `make demo`, if there was one."""
    try:
        report = json.loads((PROJECT / "var" / "demo" / "report.json").read_text())
    except (OSError, ValueError):
        return {}
    stages = {f"demo, {stage}, s": spent for stage, spent in report["seconds_by_stage"].items()}
    return stages | {"demo, in all, s": report["seconds_in_all"]}


def engine(part: str) -> dict[str, Any]:
    """What `python -m scripts.bench_<part>` prints."""
    done = subprocess.run([sys.executable, "-m", f"scripts.bench_{part}"], cwd=PROJECT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"status {done.returncode}")
    return dict(json.loads(done.stdout))


def cpu_name() -> str:
    """What /proc calls the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def run(minutes: float, parts: Sequence[str]) -> Figures:
    """Every figure; of one that fails the reason stands in `failed`."""
    figures: Figures = {}
    parts_figures: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    def take(name: str, measure: Callable[[], Figures]) -> None:
        out.print(f"measuring {name} …", markup=False)
        try:
            figures.update(measure())
        except Exception as error:
            failed[name] = f"{type(error).__name__}: {error}"
            out.print(f"  not measured: {error}", markup=False)

    spoken = speech.choose(ROOT)
    stack = Stack(ROOT / "stack", environment={"TRAINING_CONCURRENCY": "1"})
    shutil.rmtree(ROOT / "stack", ignore_errors=True)
    with stack, Client(stack.url("gateway")) as client:
        client.login(stack.secrets["ADMIN_EMAIL"], stack.secrets["ADMIN_PASSWORD"])
        take("idle memory", lambda: memory(stack))
        take("ingest", lambda: ingest_batch(client))
        dataset = client.ensure_dataset("bench")
        send_files(client, list(spoken.recordings), dataset.id, 4)
        dataset = client.find_dataset(dataset.id) or dataset
        take("preprocess", lambda: preparation(client, dataset))
        voices: list[str] = []

        def train(preset: str, **options: Any) -> Figures:
            found, voice = training(client, dataset, preset, **options)
            voices.append(voice)
            return found

        take("training lite", lambda: train("lite", train_seconds=60 * minutes))
        if voices:
            take("conversion", lambda: conversion(client, voices[0], spoken.source))
        take("training rvc-tiny", lambda: train("rvc-tiny", total_steps=60))
        jobs = client.jobs(kind="training", limit=1)
        if jobs:
            token = str(client.connection.token)
            take("job reads", lambda: asyncio.run(reads(stack.url("gateway"), token, jobs[0].id)))
    figures |= demo_stages()
    for part in parts:
        out.print(f"measuring the engine: {part} …", markup=False)
        try:
            parts_figures[part] = engine(part)
        except (RuntimeError, ValueError) as error:
            failed[part] = str(error)
            out.print(f"  not measured: {error}", markup=False)
    return {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{os.cpu_count()} × {cpu_name()}, Python {platform.python_version()}",
        "load_before": os.getloadavg()[0],
        "speech": spoken.described,
        "figures": figures,
        "engine": parts_figures,
        "failed": failed,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="of lite training")
    parser.add_argument("--engine", nargs="*", default=ENGINE, choices=ENGINE, help="these parts of the engine alone")
    options = parser.parse_args()
    ROOT.mkdir(parents=True, exist_ok=True)
    report = run(options.minutes, options.engine)
    target = ROOT / f"{datetime.now(UTC):%Y-%m-%d-%H%M}.json"
    target.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
    table = Table(box=None, pad_edge=False, header_style="bold", title=report["machine"])
    table.add_column("figure")
    table.add_column("", justify="right")
    for name, value in report["figures"].items():
        table.add_row(name, "–" if value is None else f"{value:g}")
    out.print(table)
    out.print(f"{target}", markup=False)
    raise SystemExit(1 if report["failed"] else 0)


if __name__ == "__main__":
    main()
