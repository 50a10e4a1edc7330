"""What does a run say of itself? What holds for all of it, at its first start, and what came out, at its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from libs.voice.training_bases import base_files
from libs.voice.training_run import TrainingResult

if TYPE_CHECKING:
    from libs.voice.training import _Run


def plan_of(run: _Run) -> dict[str, Any]:
    """What a resumed run is compared with and goes by; plain values."""
    return {
        "config": run.config.as_dict(),
        "total_steps": run.total,
        "steps_per_epoch": run.epoch_length,
        "batch": run.batches.batch_size,
        "dataset": run.speech.fingerprint,
        "split": run.split.as_dict(),
        "device": str(run.device),
        "threads": run.threads,
        "finish_cost": run.course.cost,
        "torch": torch.__version__,
        "warnings": run.config.warnings(),
        "bases": run.recipe.bases(),
        "base_files": base_files(run.built),
    }


def result_of(
    run: _Run, voice: Path, voice_step: int, sha256: str, *, epochs: int, seconds: float, resumed: int | None
) -> TrainingResult:
    """The result of a run that has ended: its `voice` of `voice_step`; `resumed` from which step."""
    return TrainingResult(
        voice=voice,
        sha256=sha256,
        voice_step=voice_step,
        steps=run.now.step,
        total_steps=run.total,
        epochs=epochs,
        ended=run.now.ended or "complete",
        adversarial_steps=max(voice_step - run.course.first, 0),
        losses=run.now.losses,
        best_step=run.now.best.step,
        best_loss=run.now.best.loss,
        skipped_steps=run.now.skipped,
        seconds=seconds,
        resumed_from=resumed,
        preset=run.config.preset,
        sample_rate=run.recipe.sample_rate,
        content_width=run.recipe.content_width,
        device=str(run.device),
        split=run.split.as_dict(),
        batch={"size": run.batches.batch_size, "part": run.learner.most, "processes": run.team.size},
        bases=run.bases,
        speakers=list(run.speech.speakers),
        warnings=run.config.warnings(),
    )
