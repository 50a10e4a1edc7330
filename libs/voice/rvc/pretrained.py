"""With which weights does an RVC training begin, and what does it leave for RVC itself to go on from?"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from libs.common.errors import InvalidInput
from libs.voice.rvc.checkpoints import read_training_checkpoint, start_from, write_training_checkpoint

OPTIMIZER_KEYS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "initial_lr", "params")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def begin_with(module: nn.Module, path: Path, wanted: Literal["generator", "discriminator"]) -> dict[str, str]:
    """Fill `module` from a base; returns its `file` name and `sha256` for the voice card.

    Strict but for the speaker table (see `libs.voice.rvc.checkpoints.start_from`). Raises NotFound, ModelFileRefused.
    """
    start_from(module, read_training_checkpoint(path, wanted=wanted), path.name)
    with path.open("rb") as stream:
        return {"file": path.name, "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


def find_bases(root: Path, wish: str, *, version: str, sample_rate: int, f0: bool) -> tuple[Path, Path] | None:
    """Generator and discriminator to begin with, by RVC's names (`f0G40k.pth`, `f0D40k.pth`; `G40k.pth` without pitch).

    `root`: the folder of v2 bases; those of v1 lie in `pretrained` beside it, as RVC has it. `wish`: `none`; `auto`,
    the pair if both files are there, else None; or the name of a folder in `root` that has such a pair. Raises
    InvalidInput for a name that is none, or that has no such pair.
    """
    if wish == "none":
        return None
    if not _NAME.fullmatch(wish):
        raise InvalidInput("pretrained is auto, none, or the name of a folder of bases", field="pretrained")
    folder = root if version == "v2" else root.with_name("pretrained")
    folder = folder if wish == "auto" else folder / wish
    names = [f"{'f0' if f0 else ''}{part}{sample_rate // 1000}k.pth" for part in "GD"]
    generator, discriminator = (folder / name for name in names)
    if generator.is_file() and discriminator.is_file():
        return generator, discriminator
    if wish == "auto":
        return None
    raise InvalidInput(f"the bases {wish} have no {' and '.join(names)}", field="pretrained")


def write_training_pair(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    *,
    step: int,
    epoch: int,
) -> tuple[Path, Path]:
    """`G_{step}.pth` and `D_{step}.pth` as RVC writes them (6.3 of its format), so that RVC can go on from them.

    Weights in float32, AdamW's state by position, the epoch and the initial learning rate. Positions of v2 are those of
    RVC's newest layout (the text encoder last): RVC's classic layout and Applio have it first, so there the weights fit
    and the optimizer's state does not. Older pairs are removed.
    Atomic; raises StorageFull.
    """
    paths = []
    for letter, name in (("G", "generator"), ("D", "discriminator")):
        group = optimizers[name].param_groups[0]
        path = folder / f"{letter}_{step}.pth"
        write_training_checkpoint(
            path,
            modules[name].state_dict(),
            epoch=epoch,
            learning_rate=group.get("initial_lr", group["lr"]),
            optimizer=_plain(optimizers[name].state_dict()),
        )
        paths.append(path)
    for old in (*folder.glob("G_*.pth"), *folder.glob("D_*.pth")):
        if old not in paths:
            old.unlink(missing_ok=True)
    return paths[0], paths[1]


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    # how our step is computed (fused) is no business of the one who goes on
    groups = [{key: group[key] for key in OPTIMIZER_KEYS if key in group} for group in state["param_groups"]]
    for group in groups:
        group |= {"foreach": None, "capturable": False, "differentiable": False, "fused": None}
    return {"state": state["state"], "param_groups": groups}
