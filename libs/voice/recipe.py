"""What must a network offer so that one trainer can train it, whatever it is?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from libs.common.errors import InvalidInput
from libs.voice.training_config import PRESETS, TrainingConfig


class BadStep(ArithmeticError):
    """A loss or gradient is not finite. Raised by `Recipe.step` before the optimiser runs; the trainer skips the step
    and counts it, and gives up with TrainingDiverged after several in a row."""


@dataclass(frozen=True)
class Batch:
    """What one step learns from: B items of T frames of 10 ms (at most `segment_frames`), zero-padded at the end.

    content  float32 [B, T, content_width]   content features, each 20 ms frame held twice
    f0_hz    float32 [B, T]                  0 where unvoiced
    coarse   int64   [B, T]                  1..255
    wave     float32 [B, T * hop_length]     -1..1 at the recipe's sample rate
    lengths  int64   [B]                     frames that are real, sorted descending
    speakers int64   [B]
    step     the number of the optimisation step, from 0; a schedule may be a function of it
    generator  seeded from (seed, step): every random draw of the step must come from it, or from torch's global stream,
               which the trainer seeds from (seed, step) as well. Then a resumed run is bit-identical.
    """

    content: Tensor
    f0_hz: Tensor
    coarse: Tensor
    wave: Tensor
    lengths: Tensor
    speakers: Tensor
    step: int
    generator: torch.Generator

    def to(self, device: torch.device) -> Batch:
        """The same batch with its tensors on `device`; the generator stays where it is (CPU)."""
        return Batch(
            self.content.to(device),
            self.f0_hz.to(device),
            self.coarse.to(device),
            self.wave.to(device),
            self.lengths.to(device),
            self.speakers.to(device),
            self.step,
            self.generator,
        )


class Scheduler(Protocol):
    """A learning-rate schedule as torch's: only its state matters to the trainer."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...


class Recipe(Protocol):
    """What differs between networks in training. Built by `build_recipe`, driven by `libs.voice.training.train`.

    Order of calls: construct (weights drawn from torch's global stream, which the trainer has seeded) → `prepare` →
    the state of a checkpoint loaded into modules, optimizers and schedulers → `step` … `end_epoch` … `validate` …
    → `export`. All state that a later step depends on must live in modules, optimizers or schedulers, or be a
    function of `batch.step`.
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

    def modules(self) -> dict[str, nn.Module]: ...

    def optimizers(self) -> dict[str, torch.optim.Optimizer]: ...

    def schedulers(self) -> Mapping[str, Scheduler]: ...

    def step(self, batch: Batch) -> dict[str, float]:
        """One optimisation step; losses by name, `loss` (or the first key) is the one to show. Raises BadStep."""

    def end_epoch(self) -> None:
        """Called after the last step of each epoch: schedules that move once per epoch do it here."""

    def validate(self, batch: Batch) -> dict[str, float]:
        """Losses on held-out clips without learning; `loss` (or the first key) decides which checkpoint is best."""

    def export(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights (CPU, contiguous, by name) and plain configuration (str, numbers, lists) of the voice file.

        The configuration's `kind` says which reader opens it: `lite`, or `rvc` (see libs/voice/artefact.py).
        """


def build_recipe(preset: str, config: TrainingConfig, device: torch.device | None = None) -> Recipe:
    """The recipe of `preset` for a resolved `config`, on `device` (default: CPU). Raises InvalidInput for no preset."""
    if preset not in PRESETS:
        raise InvalidInput(f"preset {preset!r} is unknown; choose one of {', '.join(PRESETS)}", field="preset")
    device = device or torch.device("cpu")
    if preset == "lite":
        from libs.voice.lite_recipe import LiteRecipe

        lite: Recipe = LiteRecipe(config, device)
        return lite
    from libs.voice.rvc.recipe import RvcRecipe

    return RvcRecipe(config, device)


def shown_loss(losses: Mapping[str, float]) -> float:
    """The loss to show and to compare: `loss`, or the first."""
    return losses["loss"] if "loss" in losses else next(iter(losses.values()))


def check_losses(losses: Mapping[str, Tensor]) -> dict[str, float]:
    """Losses as numbers; raises BadStep when one is not finite. Call it before `backward`."""
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
