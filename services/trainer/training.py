"""How does a training run live inside a worker? As a child process whose words and end are passed on truthfully."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from libs.common.errors import Cancelled, LeaseLost, Preempted, WorkFailed
from libs.common.events import TrainingOptions, TrainVoice
from libs.common.logs import get_logger
from libs.common.work import Work
from libs.voice.child import Outcome, TrainingChild
from services.trainer import team
from services.trainer.settings import TrainerSettings

log = get_logger("training")

NOT_THE_ENGINES = {"f0_method", "index_mode", "max_training_seconds", "language", "consent_recording", "transcribe"}
"""Options of other steps and providers, and the limit that goes by another name in the engine; it knows the rest."""


def config_of(options: TrainingOptions, settings: TrainerSettings) -> dict[str, Any]:
    """The engine's configuration for what a person asked; what they left open stays the preset's own."""
    limit = min(options.max_training_seconds, settings.training_timeout.total_seconds())
    return options.model_dump(exclude=NOT_THE_ENGINES, exclude_none=True) | {
        "time_limit_seconds": limit,
        "processes": settings.training_processes * settings.training_nodes,
        "device": settings.training_device,
        "threads": settings.training_threads,
        "checkpoint_every_seconds": settings.checkpoint_every.total_seconds(),
    }


async def run(
    work: Work[TrainVoice], prepared: Path, filelist: Path, settings: TrainerSettings, *, encoder: str | None = None
) -> dict[str, Any]:
    """Trains in `work.folder`, going on from the furthest earlier attempt; returns `TrainingResult.as_dict()`.

    `encoder`: checksum of the content encoder that `prepared` was made with, by which a start is chosen.
    Raises Cancelled, Preempted (both after a checkpoint), LeaseLost, what the training refused, or TrainingCrashed.
    """
    child = TrainingChild(
        {
            "experiment": str(prepared),
            "filelist": str(filelist),
            "run": str(work.folder),
            "earlier": [str(folder) for folder in work.earlier_folders],
            "bases": str(settings.pretrained_root) if settings.pretrained_root else None,
            "encoder": encoder,
        },
        config_of(work.command.options, settings),
        stall=settings.training_stall.total_seconds(),
        command=team.command(settings),
    )
    with team.announced(settings, child.job):
        return await follow(work, child)


async def follow(work: Work[Any], child: TrainingChild) -> dict[str, Any]:
    """Starts the child, passes its words and the worker's wishes on, and returns what it made; raises as `run`."""
    await child.start()
    work.mark("child started")  # from here on a crash is the child's and costs the job, not the worker
    log.info("training.started", pid=child.pid, earlier=len(work.earlier_folders))
    obeying = asyncio.create_task(_obey(work, child), name="training.obey")
    try:
        async for line in child.progress():
            _pass_on(work, line)
        outcome = await child.wait()
    finally:
        obeying.cancel()
        child.kill("its worker stopped waiting")
    return _judge(work, outcome)


async def _obey(work: Work[Any], child: TrainingChild) -> None:
    """Turns the worker's reasons to stop into the child's."""
    why = await work.stopped()
    log.info("training.stopping", why=why)
    if why == "cancel":
        await child.cancel()
    elif why == "preempt":
        await child.preempt()
    else:
        child.kill("another worker owns this step now")


def _pass_on(work: Work[Any], line: dict[str, Any]) -> None:
    step, total = int(line.get("step") or 0), int(line.get("total_steps") or 0)
    if step:
        work.mark(f"step {step}")
    fraction = line.get("fraction")
    work.report(
        fraction if fraction is not None else step / total if total else 0.0,
        done=step,
        total=total,
        loss=line.get("loss"),
        losses=line.get("losses") or {},
        eta_seconds=line.get("eta_seconds"),
        steps_per_second=line.get("steps_per_second"),
        message=str(line.get("phase", "")),
    )


def _judge(work: Work[Any], outcome: Outcome) -> dict[str, Any]:
    if outcome.ending == "completed" and outcome.result is not None:
        return outcome.result
    if work.should_stop() == "lost":
        raise LeaseLost
    if outcome.ending == "cancelled":
        raise Cancelled
    if outcome.ending == "preempted":
        raise Preempted
    log.warning("training.ended", ending=outcome.ending, code=outcome.returncode, said=outcome.stderr_tail[-5:])
    raise outcome.error or WorkFailed(f"the training process ended with code {outcome.returncode} and no result")
