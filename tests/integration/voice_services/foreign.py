"""Voice files as strangers send them: whole ones, hostile ones, archives; and how they come into quarantine."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import torch

from libs.common.events import MakeVoice, MakingOptions, StagedFile
from libs.common.jobs import Step
from libs.common.paths import WITHOUT_DATASET, Paths
from libs.voice.retrieval import build_index, write_index
from libs.voice.rvc.config import CONFIGS
from libs.voice.rvc.synthesizer import SynthesizerNetwork


class Payload:
    """Touches a file when somebody unpickles it."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.proof}",)


def hostile_voice(path: Path, proof: Path) -> Path:
    """A `.pth` that touches `proof` when it is opened without care."""
    torch.save({"weight": {"emb_g.weight": torch.zeros(1, 4)}, "config": Payload(proof)}, path)
    return path


def hostile_pickle(path: Path, proof: Path) -> Path:
    """The same as a plain pickle, as very old files are."""
    path.write_bytes(pickle.dumps({"weight": Payload(proof)}))
    return path


def narrow_index(path: Path, width: int = 256) -> Path:
    """An index of vectors that a v2 voice does not have."""
    write_index(build_index([np.random.default_rng(0).standard_normal((400, width)).astype(np.float32)]), path)
    return path


def zipped(path: Path, files: dict[str, Path | bytes]) -> Path:
    """A zip with these entries, whatever their names are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def training_checkpoint(path: Path, seed: int = 0) -> Path:
    """A `G_….pth` of rvc-tiny, as RVC's trainer writes it."""
    torch.manual_seed(seed)
    network = SynthesizerNetwork(CONFIGS["rvc-tiny"], with_posterior=True)
    torch.save({"model": network.state_dict(), "iteration": 7, "optimizer": None, "learning_rate": 1e-4}, path)
    return path


def quarantined(paths: Paths, upload_id: str, file: Path, name: str | None = None) -> StagedFile:
    """Puts a file where ingest leaves a model file."""
    staged = paths.staged_upload(upload_id)
    staged.folder.mkdir(parents=True)
    content = file.read_bytes()
    staged.original.write_bytes(content)
    staged.record.write_text(json.dumps({"upload_id": upload_id}))
    sha256 = hashlib.sha256(content).hexdigest()
    return StagedFile(upload_id=upload_id, sha256=sha256, name=name or file.name, size_bytes=len(content))


def make(job: str, voice: str, options: MakingOptions) -> MakeVoice:
    return MakeVoice(
        job_id=job, step=Step.make, experiment=WITHOUT_DATASET, voice=voice, display_name=voice.title(), options=options
    )
