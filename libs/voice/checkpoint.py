"""How does a training run survive anything? Whole checkpoints, committed by a rename, checked before they are believed.

checkpoints/
  checkpoint-00000400/   state.pt    modules, optimizers, schedulers, random streams: plain, loads with weights_only
                         meta.json   step, epoch, config, metrics, size and SHA-256 of state.pt
  checkpoint-00000400.replaced/      the one of the same step until the one that was written again is in its place
  checkpoint-00000360.broken/        one whose checksum did not fit, kept for a person to look at
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from libs.common.errors import ModelFileRefused, WorkFailed
from libs.voice.atomic import (
    TEMPORARY_PREFIX,
    save_tensors,
    storage_full_told,
    sync_folder,
    write_atomically,
    write_text_atomically,
)
from libs.voice.safe_load import load_tensors

FORMAT = 1
REPLACED = ".replaced"


class Stateful(Protocol):
    """What a checkpoint keeps: all that holds weights, an optimiser's state or a schedule's, each by its name."""

    def modules(self) -> Mapping[str, nn.Module]:
        """What holds weights."""
        ...

    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """What holds an optimiser's state."""
        ...

    def schedulers(self) -> Mapping[str, Any]:
        """What moves the learning rates."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A committed checkpoint: what its `meta.json` says. `step` optimisation steps are done when it was written."""

    folder: Path
    step: int
    epoch: int
    sha256: str
    size: int
    progress: dict[str, Any]
    metrics: dict[str, float]


def save_checkpoint(
    root: Path,
    recipe: Stateful,
    *,
    step: int,
    epoch: int,
    config: Mapping[str, Any],
    progress: Mapping[str, Any],
    metrics: Mapping[str, float],
    keep: int,
) -> Checkpoint:
    """Write the state of `recipe` after `step` steps, safe on disk; then drop all but the newest `keep`.

    `progress`: plain values that the trainer needs to go on (best so far, counters). Raises StorageFull, leaving no
    part.
    """
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"checkpoint-{step:08d}"
    temporary = root / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}"
    temporary.mkdir()
    state = {
        "modules": {name: module.state_dict() for name, module in recipe.modules().items()},
        "optimizers": {name: optimizer.state_dict() for name, optimizer in recipe.optimizers().items()},
        "schedulers": {name: scheduler.state_dict() for name, scheduler in recipe.schedulers().items()},
        "random": random_streams(),
    }
    try:
        sha256 = write_atomically(temporary / "state.pt", lambda stream: save_tensors(state, stream))
        meta = {
            "format": FORMAT,
            "step": step,
            "epoch": epoch,
            "sha256": sha256,
            "size": (temporary / "state.pt").stat().st_size,
            "torch": torch.__version__,
            "config": dict(config),
            "progress": dict(progress),
            "metrics": dict(metrics),
        }
        write_text_atomically(temporary / "meta.json", json.dumps(meta, indent=2, sort_keys=True))
        with storage_full_told(final.name):
            if final.exists():  # the same step written again after a resume: at no moment is there none
                replaced = root / f"{final.name}{REPLACED}"
                if replaced.exists():
                    _discard(replaced)
                os.rename(final, replaced)
            os.rename(temporary, final)
            sync_folder(root)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    checkpoint = _read_meta(final)
    _drop_old(root, keep)
    return checkpoint


def load_newest(root: Path, recipe: Stateful) -> Checkpoint | None:
    """Bring `recipe` to the newest whole checkpoint under `root`; None when there is none at all.

    A checkpoint that is damaged is renamed to `….broken` and the one before it is taken. Raises WorkFailed when there
    are checkpoints and none is whole: a run never silently starts again from nothing.
    """
    _sweep(root)
    found, broken = _listed(root)
    for folder in broken:
        _set_aside(folder)
    for checkpoint in sorted(found, key=_age):
        try:
            state = _verified(checkpoint)
            _restore(recipe, state)
        except ModelFileRefused:
            _set_aside(checkpoint.folder)
            continue
        return checkpoint
    aside = sorted(path.name for path in root.glob("*.broken*")) if root.is_dir() else []
    if aside:
        raise WorkFailed(
            f"{len(aside)} checkpoints exist and none is whole ({', '.join(aside[:3])}); the run cannot go on",
            actions=("Restore a checkpoint from a backup, or start a new training: a retry would find the same.",),
        )
    return None


def listed(root: Path) -> list[Checkpoint]:
    """The committed checkpoints under `root`, by their metadata."""
    return _listed(root)[0]


def newest_step(root: Path) -> int | None:
    """The step of the newest committed checkpoint, by its metadata, without reading its tensors."""
    found, _ = _listed(root)
    return max((checkpoint.step for checkpoint in found), default=None)


def random_streams() -> dict[str, Any]:
    """The states of torch's, numpy's and Python's global random streams as plain values and tensors."""
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [name, [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
        "python": [version, list(internal), gauss],
    }


def restore_random_streams(streams: Mapping[str, Any]) -> None:
    """The way back of `random_streams`."""
    torch.set_rng_state(streams["torch"])
    if streams["cuda"] and torch.cuda.device_count() == len(streams["cuda"]):
        torch.cuda.set_rng_state_all(streams["cuda"])
    name, keys, position, has_gauss, cached = streams["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = streams["python"]
    random.setstate((version, tuple(internal), gauss))


def _restore(recipe: Stateful, state: Mapping[str, Any]) -> None:
    try:
        for name, module in recipe.modules().items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in recipe.optimizers().items():
            optimizer.load_state_dict(state["optimizers"][name])
        for name, scheduler in recipe.schedulers().items():
            scheduler.load_state_dict(state["schedulers"][name])
        restore_random_streams(state["random"])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise ModelFileRefused(f"the checkpoint is of another network: {str(error).splitlines()[0]}") from error


def _verified(checkpoint: Checkpoint) -> Any:
    path = checkpoint.folder / "state.pt"
    if not path.is_file() or path.stat().st_size != checkpoint.size:
        raise ModelFileRefused(f"{checkpoint.folder.name}: state.pt is cut short")
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != checkpoint.sha256:
            raise ModelFileRefused(f"{checkpoint.folder.name}: the checksum does not fit")
    return load_tensors(path, max_bytes=64 * 2**30)


def _listed(root: Path) -> tuple[list[Checkpoint], list[Path]]:
    found: list[Checkpoint] = []
    broken: list[Path] = []
    if root.is_dir():
        for folder in sorted(root.iterdir()):
            if not folder.is_dir() or folder.name.startswith(TEMPORARY_PREFIX) or ".broken" in folder.name:
                continue
            try:
                found.append(_read_meta(folder))
            except (OSError, ValueError, KeyError, TypeError):
                broken.append(folder)
    return found, broken


def _read_meta(folder: Path) -> Checkpoint:
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    if meta["format"] != FORMAT:
        raise ValueError(f"format {meta['format']}")
    return Checkpoint(
        folder,
        int(meta["step"]),
        int(meta["epoch"]),
        str(meta["sha256"]),
        int(meta["size"]),
        dict(meta["progress"]),
        {name: float(value) for name, value in meta["metrics"].items()},
    )


def _drop_old(root: Path, keep: int) -> None:
    found, _ = _listed(root)
    newest: dict[int, Checkpoint] = {}
    for checkpoint in sorted(found, key=_age):
        newest.setdefault(checkpoint.step, checkpoint)
    kept = [checkpoint.folder for checkpoint in newest.values()][:keep]
    for checkpoint in found:
        if checkpoint.folder not in kept:
            with contextlib.suppress(OSError):
                _discard(checkpoint.folder)


def _age(checkpoint: Checkpoint) -> tuple[int, bool]:
    """Sorts the newest first; of two of one step the one that replaced the other."""
    return -checkpoint.step, checkpoint.folder.name.endswith(REPLACED)


def _discard(folder: Path) -> None:
    """Delete through a rename: a kill in between leaves a temporary folder and not half a checkpoint."""
    doomed = folder.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}")
    os.rename(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def _set_aside(folder: Path) -> None:
    target = folder.with_name(f"{folder.name}.broken")
    while target.exists():
        target = folder.with_name(f"{folder.name}.broken-{uuid.uuid4().hex[:6]}")
    os.rename(folder, target)


def _sweep(root: Path) -> None:
    """Remove what a killed writer left."""
    if root.is_dir():
        for left in root.glob(f"{TEMPORARY_PREFIX}*"):
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)
