"""Results of single steps, made directly, so that a test of one step need not run those before it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.common import manifests
from libs.common.events import ManifestRef
from libs.common.paths import Paths
from libs.voice.artefact import write_voice
from libs.voice.content_small import SmallContentEncoder
from libs.voice.recipe import build_recipe
from libs.voice.retrieval import build_index, write_index
from libs.voice.training_config import TrainingConfig
from tests.unit.voice.experiments import make_experiment

RATES = {"rvc-tiny": 16_000, "lite": 24_000}


@lru_cache
def encoder_card() -> dict[str, Any]:
    encoder = SmallContentEncoder()
    return {"name": encoder.name, "checksum": encoder.checksum, "width": encoder.width}


def commit(paths: Paths, job: str, step: str, data: dict[str, Any], files: list[Path]) -> ManifestRef:
    """A step's manifest as a worker would have committed it."""
    steps = paths.experiment("anna").step(job, step)
    manifest = manifests.Manifest(
        job_id=job,
        step=step,
        token=1,
        folder=paths.relative(steps.attempt(1)),
        files=manifests.entries(paths, files),
        data=data,
    )
    return manifests.store(paths, steps.manifest(1), manifest)


def prepared_tones(paths: Paths, *, job: str = "prepared", **shape: Any) -> ManifestRef:
    """A prepared dataset of gliding tones at 16 kHz."""
    folder = paths.experiment("anna").step(job, "preprocess").attempt(1)
    make_experiment(folder, **shape)
    (folder / "1_16k_wavs").mkdir()
    for wave in (folder / "0_gt_wavs").glob("[0-9]*.wav"):
        shutil.copyfile(wave, folder / "1_16k_wavs" / wave.name)
    lines = [line.split("|") for line in (folder / "filelist.txt").read_text().splitlines()]
    whose = {Path(wave).name.split("_")[0]: int(speaker) for wave, *_, speaker in lines}
    recordings = [{"index": index, "speaker": speaker} for index, speaker in sorted(whose.items())]
    return commit_prepared(paths, job=job, recordings=recordings)


def commit_prepared(paths: Paths, *, job: str = "prepared", recordings: Sequence[dict[str, Any]] = ()) -> ManifestRef:
    """The manifest of what lies in a prepared folder now."""
    folder = paths.experiment("anna").step(job, "preprocess").attempt(1)
    data = {
        "width": 768,
        "seconds": 10.0,
        "encoder": encoder_card(),
        "f0_method": "swift",
        "preset": "rvc-tiny",
        "recordings": list(recordings),
    }
    return commit(paths, job, "preprocess", data, [path for path in folder.rglob("*") if path.is_file()])


def write_untrained(path: Path, *, preset: str = "rvc-tiny", seed: int = 0, zeros: bool = False) -> str:
    """A voice file with the weights that a training begins with, or with nothing but zeros; returns its SHA-256."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    weights, config = build_recipe(preset, TrainingConfig(preset=preset, seed=seed), torch.device("cpu")).export()
    if zeros:
        weights = {name: torch.zeros_like(value) for name, value in weights.items()}
    return write_voice(path, weights, config)


def write_random_index(path: Path, *, seed: int = 0) -> None:
    """An index of features that no speech has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_index(build_index([np.random.default_rng(seed).standard_normal((400, 768)).astype(np.float32)]), path)


def untrained_steps(
    paths: Paths, job: str, *, seed: int = 0, zeros: bool = False
) -> tuple[ManifestRef, ManifestRef, ManifestRef]:
    """What train, index and evaluate of `job` would have left, without any training."""
    experiment = paths.experiment("anna")
    weights = experiment.step(job, "train").attempt(1) / "voice.pth"
    write_untrained(weights, seed=seed, zeros=zeros)
    result = {
        "preset": "rvc-tiny",
        "sample_rate": 16_000,
        "content_width": 768,
        "steps": 0,
        "epochs": 0,
        "losses": {},
        "seconds": 0.0,
        "ended": "complete",
        "best_step": None,
        "device": "cpu",
        "split": {"held_out_sources": ["0"]},
    }
    index = experiment.step(job, "index").attempt(1) / "voice.index"
    write_random_index(index, seed=seed)
    return (
        commit(paths, job, "train", {"result": result, "options": {}}, [weights]),
        commit(paths, job, "index", {"vectors": 400}, [index]),
        commit(paths, job, "evaluate", {"quality": {"peak": 0.5}}, []),
    )
