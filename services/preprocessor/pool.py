"""What runs in the preparation's own processes? The heavy libraries are imported there, so the service stays small."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from libs.common.errors import Cancelled
from libs.common.processes import leave_with_parent

if TYPE_CHECKING:
    from services.preprocessor.preparation import Plan

DONE_FOLDER = ".prepared"
Precision = Literal["auto", "fp32", "bf16"]

_state: dict[str, Any] = {}


def begin(parent: int, stop: Any, plan: Plan, folder: Path) -> None:
    """Prepares a process: it ends with its parent, uses one core, and loads encoder and pitch once."""
    leave_with_parent(parent)
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from libs.voice.content import load_content_encoder
    from libs.voice.experiment import ExperimentFolders
    from libs.voice.pitch import Pitch
    from libs.voice.preparation import PreparationSettings

    torch.set_num_threads(1)
    is_half = plan.precision == "bf16"
    dtype = torch.bfloat16 if is_half else torch.float32
    _state.update(
        stop=stop,
        folders=ExperimentFolders(folder, plan.width),
        settings=PreparationSettings(sample_rate=plan.sample_rate, f0_method=plan.f0_method),
        encoder=load_content_encoder(plan.hubert, version="v1" if plan.width == 256 else "v2", dtype=dtype),
        pitch=Pitch(plan.rmvpe, threads=1, bfloat16=is_half),
    )


def prepare(share: list[tuple[int, Path]]) -> list[dict[str, Any]]:
    """A share of the recordings into the attempt's folders. Raises Cancelled when the service asked to stop."""
    from dataclasses import asdict

    from libs.voice.preparation import prepare_recordings

    stop = _state["stop"]
    if stop.is_set():
        raise Cancelled
    results = prepare_recordings(
        share,
        _state["folders"],
        _state["settings"],
        _state["encoder"],
        _state["pitch"],
        should_stop=stop.is_set,
    )
    return [asdict(result) for result in results]


def describe(preset: str, f0_method: str, hubert: Path, rmvpe: Path, precision: Precision) -> dict[str, Any]:
    """Rate, feature width, pitch method, encoder and precision of a preset on this machine. Raises InvalidInput."""
    import torch

    from libs.common.errors import InvalidInput
    from libs.voice.content import card_of, load_content_encoder
    from libs.voice.device import pick_feature_precision, precision_name
    from libs.voice.pitch import Pitch
    from libs.voice.training_config import PRESETS

    if preset not in PRESETS:
        raise InvalidInput(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}", field="preset")
    chosen = PRESETS[preset]
    encoder = load_content_encoder(hubert, version="v1" if chosen.content_width == 256 else "v2")
    return {
        "sample_rate": chosen.sample_rate,
        "width": chosen.content_width,
        "f0_method": Pitch(rmvpe).resolve(f0_method),
        "encoder": card_of(encoder),
        "precision": precision_name(pick_feature_precision(precision, torch.device("cpu"))),
    }


def conclude(folder: Path, plan: Plan) -> dict[str, Any]:
    """Writes `filelist.txt` with mute entries; returns pieces and voiced ratio. Raises DatasetEmpty."""
    import numpy as np

    from libs.voice.experiment import load_array, write_filelist
    from libs.voice.preparation import ensure_mute

    folders = _state["folders"]
    mute = ensure_mute(plan.mute, plan.sample_rate, _state["encoder"])
    pieces = write_filelist(folders, mute=mute, speakers=plan.speakers)
    voiced = frames = 0
    for name in folders.names():
        f0 = load_array(folders.piece(name)[3])
        voiced += int(np.count_nonzero(f0))
        frames += int(f0.size)
    return {"pieces": pieces, "voiced_ratio": round(voiced / max(frames, 1), 4)}
