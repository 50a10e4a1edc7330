"""How are RVC's training checkpoints and pretrained bases read, written, and used to start a training from?

`G_{step}.pth` and `D_{step}.pth` of RVC and Applio, and the bases (`pretrained_v2/f0G40k.pth`, …), are one form:
{"model": …, "iteration": epoch, "optimizer": …, "learning_rate": …}; bases may hold `model` alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from libs.common.errors import ModelFileRefused
from libs.voice.atomic import save_tensors, write_atomically
from libs.voice.file_kinds import kind_of, wrong_kind
from libs.voice.plain import is_plain
from libs.voice.rvc.files import old_names, shape_differences
from libs.voice.safe_load import MAX_TRAINING_BYTES, load_tensors

SPEAKERS = "emb_g.weight"
_KEYS = ("model", "iteration", "optimizer", "learning_rate", "scaler")


@dataclass(frozen=True)
class TrainingCheckpoint:
    """What a training checkpoint or base holds.

    kind           whose weights these are
    model          name → tensor in RVC's older names (weight_g, weight_v), in the order of the file
    epoch          `iteration` of the file; None in bases without it
    optimizer      AdamW's state dict as torch gives it: its numbers are positions in the order of `model`; None
                   where the file has none
    learning_rate  the initial one, as RVC writes it, not the present one
    scaler         Applio's gradient scaler, else None
    extra_keys     what else the file holds, sorted
    """

    kind: Literal["generator", "discriminator"]
    model: dict[str, Tensor]
    epoch: int | None = None
    optimizer: dict[str, Any] | None = None
    learning_rate: float | None = None
    scaler: dict[str, Any] | None = None
    extra_keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Started:
    """How a network was filled from a checkpoint: speaker rows that were `taken` from it, and that stayed `new`."""

    taken: int = 0
    new: int = 0


def read_training_checkpoint(
    path: Path, *, wanted: Literal["generator", "discriminator"] | None = None
) -> TrainingCheckpoint:
    """Read `G_….pth`, `D_….pth` or a pretrained base of RVC or Applio. No code in the file runs.

    `wanted`: refuse the other one (a discriminator where the generator is needed). Raises NotFound, and
    ModelFileRefused for what is unsafe, damaged, over 2 GiB, or another sort of file (an exported voice, HuBERT, …).
    """
    return checkpoint_of(load_tensors(path, max_bytes=MAX_TRAINING_BYTES), path.name, wanted=wanted)


def checkpoint_of(
    file: Any, name: str, *, wanted: Literal["generator", "discriminator"] | None = None
) -> TrainingCheckpoint:
    """`read_training_checkpoint` for what `load_tensors` read already; `name` is for messages."""
    kind = kind_of(file)
    if kind not in ("generator", "discriminator") or not isinstance(file.get("model"), dict):
        raise wrong_kind(name, kind, wanted="a training checkpoint or base model of RVC (`G_….pth`, `D_….pth`)")
    if wanted is not None and kind != wanted:
        letter = "G" if wanted == "generator" else "D"
        raise ModelFileRefused(f"{name} is a {kind}; give the {letter}_ file, which holds the {wanted}")
    model = file["model"]
    if not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in model.items()):
        raise ModelFileRefused(f"{name} holds a `model` that is not made of tensors alone")
    epoch, rate = file.get("iteration"), file.get("learning_rate")
    optimizer, scaler = file.get("optimizer"), file.get("scaler")
    return TrainingCheckpoint(
        kind="generator" if kind == "generator" else "discriminator",
        model=old_names(model),
        epoch=epoch if isinstance(epoch, int) else None,
        optimizer=optimizer if isinstance(optimizer, dict) else None,
        learning_rate=float(rate) if isinstance(rate, (int, float)) else None,
        scaler=scaler if isinstance(scaler, dict) else None,
        extra_keys=tuple(sorted(str(key) for key in file if key not in _KEYS)),
    )


def write_training_checkpoint(
    path: Path,
    model: Mapping[str, Tensor],
    *,
    epoch: int,
    learning_rate: float,
    optimizer: Mapping[str, Any] | None = None,
    scaler: Mapping[str, Any] | None = None,
) -> str:
    """Write `model` as RVC writes `G_….pth` and `D_….pth`; returns the file's SHA-256 as hex. Atomic.

    `model`: a `state_dict()` with the posterior encoder, float32, in RVC's names. `epoch`: epochs done; RVC repeats it
    when it resumes, Applio goes on after it. `learning_rate`: the initial one. `optimizer`: AdamW's `state_dict()` over
    the same parameters in the same order. `scaler`: Applio's key, left out when None. Raises StorageFull, and
    ValueError for a state without tensors or names of another form.
    """
    kept = OrderedDict((name, value.detach().cpu().contiguous().clone()) for name, value in model.items())
    if not kept or list(old_names(kept)) != list(kept):
        raise ValueError("model must be a state dict in RVC's names (weight_g, weight_v)")
    content: dict[str, Any] = {
        "model": kept,
        "iteration": int(epoch),
        "optimizer": _on_cpu(dict(optimizer)) if optimizer is not None else {},
        "learning_rate": float(learning_rate),
    }
    if scaler is not None:
        content["scaler"] = _on_cpu(dict(scaler))
    return write_atomically(path, lambda stream: save_tensors(content, stream))


def start_from(module: nn.Module, checkpoint: TrainingCheckpoint, name: str) -> Started:
    """Fill `module` (SynthesizerNetwork or Discriminators) with the weights of a checkpoint or base.

    Strict: every name and shape must be the module's. The one exception is the speaker table, whose rows may be more or
    fewer: the rows that both have are taken, further rows of the module stay as they were drawn, further rows of the
    file are left out (a base has 109 speakers, Applio's files as many as were trained). Raises ModelFileRefused that
    lists every difference and leaves the module as it was; `name` is for messages.
    """
    state = dict(checkpoint.model)
    own = dict(module.state_dict())
    started = Started()
    table, given = own.get(SPEAKERS), state.get(SPEAKERS)
    if table is not None and given is not None and given.ndim == 2 and given.shape[1] == table.shape[1]:
        rows = min(len(table), len(given))
        started = Started(taken=rows, new=len(table) - rows)
        state[SPEAKERS] = torch.cat([given[:rows].to(table), table[rows:]])
    if differences := shape_differences(state, {key: tuple(value.shape) for key, value in own.items()}):
        raise ModelFileRefused(f"{name} does not fit this preset: {differences}")
    for key, value in state.items():
        if not bool(torch.isfinite(value).all()):
            raise ModelFileRefused(f"{name}: {key} holds values that are not finite")
    module.load_state_dict({key: value.float() for key, value in state.items()})
    return started


def optimizer_state(checkpoint: TrainingCheckpoint, module: nn.Module, name: str) -> dict[str, Any]:
    """The checkpoint's optimizer state for `module`'s own order of parameters, ready for `load_state_dict`.

    The state is by position. RVC's newer v2 files have the text encoder last, older files and Applio's first; the order
    of the names in the same file says which. Raises ModelFileRefused when the file has no state, or one that does not
    belong to these parameters; `name` is for messages.
    """
    held = checkpoint.optimizer
    if not held or not isinstance(held.get("state"), dict) or not isinstance(held.get("param_groups"), list):
        raise ModelFileRefused(f"{name} holds no optimizer state")
    places = {key: number for number, key in enumerate(checkpoint.model)}
    own = dict(module.named_parameters())
    if places.keys() != own.keys():
        raise ModelFileRefused(f"{name} holds the optimizer state of another network")
    state: dict[int, Any] = {}
    for number, (key, parameter) in enumerate(own.items()):
        entry = held["state"].get(places[key])
        if entry is None:
            continue
        for part in ("exp_avg", "exp_avg_sq"):
            value = entry.get(part) if isinstance(entry, dict) else None
            if not isinstance(value, Tensor) or value.shape != parameter.shape:
                raise ModelFileRefused(f"{name}: its optimizer state for {key} does not fit")
        # torch walks whatever else stands here, and a hostile structure may be walked for hours
        state[number] = {part: value for part, value in entry.items() if isinstance(value, (Tensor, int, float))}
    groups = held["param_groups"]
    if len(groups) != 1 or not isinstance(groups[0], dict) or len(groups[0].get("params", ())) != len(own):
        raise ModelFileRefused(f"{name}: its optimizer has other groups than one over all parameters")
    if not all(is_plain(value) for value in groups[0].values()):
        raise ModelFileRefused(f"{name}: its optimizer holds other things than numbers")
    return {"state": state, "param_groups": [{**groups[0], "params": list(range(len(own)))}]}


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_on_cpu(each) for each in value)
    return value
