"""What must a network offer so that one trainer can train it, whatever it is?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from libs.common.errors import InvalidInput, TrainingCrashed
from libs.voice.batch import Batch
from libs.voice.faults import BadStep
from libs.voice.memory import first_line, is_out_of_memory
from libs.voice.team import Team
from libs.voice.training_config import PRESETS, LossFunction, TrainingConfig

__all__ = ["BadStep", "Batch", "Recipe", "Scheduler", "build_recipe"]


class Scheduler(Protocol):
    """A learning-rate schedule as torch's: only its state matters to the trainer."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The way back of `state_dict`."""


class Recipe(Protocol):
    """What differs between networks in training. Built by `build_recipe`, driven by `libs.voice.training.train`.

    Order of calls: construct (weights drawn from torch's global stream, which the trainer has seeded) → `prepare` →
    the state of a checkpoint loaded into modules, optimizers and schedulers → `step` … `end_epoch` … `validate` …
    → `export`. All state that a later step depends on must live in modules, optimizers or schedulers, or be a
    function of `batch.step` and `batch.seeds`.
    """

    name: str
    """The preset: `lite`, `rvc-v2-40k`, …"""
    sample_rate: int
    """Hz; frames are 10 ms."""
    hop_length: int
    """`sample_rate // 100`."""
    content_width: int
    """768, or 256 for v1."""
    segment_frames: int
    """The longest item that `step` is given: a piece that is longer is cropped at a random frame."""

    def prepare(self, total_steps: int, steps_per_epoch: int) -> None:
        """Tell the length of the run, before any checkpoint is loaded and before the first step."""

    def finish_from(self, step: int, total_steps: int) -> None:
        """The finish begins after `step` steps and the run ends after `total_steps`, whatever `prepare` planned."""

    def is_finishing(self, step: int) -> bool:
        """Whether the step of that number, from 0, belongs to the finish: another goal, and another cost.

        There the validation's loss says whether a voice is whole, and no longer which one is best.
        """
        ...

    def modules(self) -> dict[str, nn.Module]:
        """All that holds weights, by name."""
        ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """All that holds an optimiser's state, by name."""
        ...

    def schedulers(self) -> Mapping[str, Scheduler]:
        """What moves the learning rates, by name."""
        ...

    def step(self, *parts: Batch) -> dict[str, float]:
        """One optimisation step from a batch in one or more parts, whose `share`s weigh them.

        Losses of the whole by name; `loss` (or the first key) is the one to show. Raises BadStep, and whatever says
        that memory ran out: the same step may then be asked for again in smaller parts.
        """

    def end_epoch(self) -> None:
        """Called after the last step of each epoch: schedules that move once per epoch do it here."""

    def validate(self, batch: Batch) -> dict[str, float]:
        """Losses on held-out clips without learning; `loss` (or the first key) decides which checkpoint is best."""

    def bases(self) -> dict[str, dict[str, str]]:
        """Which pretrained files the weights began with: module → `file` and `sha256`; empty from nothing."""

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights (CPU, contiguous, by name) and plain configuration (str, numbers, lists) of the voice file.

        The configuration's `kind` says which reader opens it: `lite`, or `rvc` (see libs/voice/artefact.py).
        """


def build_recipe(
    preset: str,
    config: TrainingConfig,
    device: torch.device | None = None,
    team: Team | None = None,
    speakers: int = 1,
) -> Recipe:
    """The recipe of `preset` for a resolved `config`, on `device` (default: CPU). Raises InvalidInput for no preset.

    `team`: the processes that make the run together; default: this one alone. `speakers`: how many a `lite` voice
    learns to speak as; RVC's networks always have places for 109.
    """
    if preset not in PRESETS:
        raise InvalidInput(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}", field="preset")
    device, team = device or torch.device("cpu"), team or Team()
    if preset == "lite":
        from libs.voice.lite_recipe import LiteRecipe

        lite: Recipe = LiteRecipe(config, device, team, speakers)
        return lite
    from libs.voice.rvc.recipe import RvcRecipe

    return RvcRecipe(config, device, team)


def new_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
    config: TrainingConfig,
    *,
    rate: float,
    decay: float,
    betas: tuple[float, float],
    epsilon: float,
) -> torch.optim.Optimizer:
    """The optimiser that `config` names. `decay`: decoupled in adamw, added to the gradient (L2) in the others.

    `parameters` may be groups as torch has them, `{"params": …, "lr": …}`.
    """
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
        "radam": torch.optim.RAdam,
    }
    # one kernel over all weights where there is one: the same numbers, fewer passes over memory
    fused: dict[str, Any] = {"fused": True} if config.optimizer in ("adamw", "adam") else {}
    made: Any = kinds[config.optimizer]
    optimizer: torch.optim.Optimizer = made(parameters, lr=rate, betas=betas, eps=epsilon, weight_decay=decay, **fused)
    return optimizer


def difference(made: Tensor, truth: Tensor, kind: LossFunction) -> Tensor:
    """How far two tensors of one shape are apart, element by element: l1 |d|, l2 d², huber (quadratic below 1)."""
    if kind == "l1":
        return (made - truth).abs()
    if kind == "l2":
        return (made - truth).square()
    return F.huber_loss(made, truth, reduction="none")


def added_up(team: Team, values: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Losses of the parts of all processes, weighted already, as those of the whole batch. All have the same names."""
    names = list(values[0])
    sums = team.sum([sum(each[name] for each in values) for name in names])
    return dict(zip(names, sums, strict=True))


def shown_loss(losses: Mapping[str, float]) -> float:
    """The loss to show and to compare: `loss`, or the first."""
    return losses["loss"] if "loss" in losses else next(iter(losses.values()))


def check_losses(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses, each of shape [], as numbers; raises BadStep when one is not finite. Call it before `backward`."""
    values = {name: float(value.detach()) for name, value in losses.items()}
    for name, value in values.items():
        if not math.isfinite(value):
            raise BadStep(f"{name} is {value}")
    return values


def check_gradients(parameters: Iterable[nn.Parameter], max_norm: float | None = None) -> float:
    """The L2 norm of all gradients, clipped to `max_norm` if given; raises BadStep when it is not finite."""
    held = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in held if p.grad is not None])
    if not math.isfinite(float(norm)):
        raise BadStep(f"the gradient's norm is {float(norm)}")
    if max_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(held, max_norm, norm)
    return float(norm)


def apply_gradients(
    team: Team, module: nn.Module, optimizer: torch.optim.Optimizer, max_norm: float | None = None
) -> float:
    """The step of `optimizer` with the gradients of all processes; returns their norm before clipping.

    Raises BadStep when it is not finite, and TrainingCrashed when memory runs out here: smaller parts are no help.
    """
    parameters = list(module.parameters())
    team.sum_gradients(parameters)
    norm = check_gradients(parameters, max_norm)
    try:
        optimizer.step()
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingCrashed(f"the optimiser's state does not fit into memory: {first_line(error)}") from error
        raise
    return norm
