"""How is a voice trained, whatever its network, so that it can be stopped, killed and resumed at any step?"""

from __future__ import annotations

import random
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.common.errors import Cancelled, Preempted, TrainingCrashed, TrainingDiverged, TrainingTimeout
from libs.voice.artefact import write_voice
from libs.voice.atomic import write_atomically
from libs.voice.checkpoint import listed, load_newest, save_checkpoint
from libs.voice.dataset import (
    Batches,
    Split,
    collate,
    fingerprint,
    held_out_batches,
    read_pieces,
    split_pieces,
    stream_seed,
)
from libs.voice.device import be_deterministic, pick_device, set_threads
from libs.voice.pace import trial_of_speed, trial_of_threads
from libs.voice.progress import Phase, Progress, Report, Reporter, Speed
from libs.voice.recipe import BadStep, Recipe, build_recipe, shown_loss
from libs.voice.run_record import MetricsLog, RunFolder, TrainLog, check_same_run
from libs.voice.training_config import TrainingConfig
from libs.voice.training_run import ShouldStop, StopReason, TrainingInputs, TrainingResult

__all__ = ["ShouldStop", "StopReason", "TrainingInputs", "TrainingResult", "train"]

VALIDATIONS_PER_RUN = 20
MOST_HELD_OUT_CROPS = 16
FEWEST_STEPS = 10
CHECKPOINT_SHARE = 20
"""A checkpoint may take a twentieth of the time at most: slow disks and large networks get longer intervals."""


def train(
    inputs: TrainingInputs,
    config: TrainingConfig,
    report: Report,
    should_stop: ShouldStop = lambda: None,
) -> TrainingResult:
    """Train to the end, from the newest checkpoint if there is one; blocking.

    `report` is called at least every 2 s (from this thread or a helper, never both at once) and at the end.
    `should_stop` is asked between steps. On a CPU with the same `threads`, the weights are the same bit by bit however
    often the run was killed.

    Raises Cancelled, Preempted and TrainingTimeout, each after a checkpoint; TrainingDiverged, TrainingCrashed (out of
    memory), StorageFull, Conflict (another run's folder), the Dataset… errors, WorkFailed (all checkpoints broken),
    GpuUnavailable.
    """
    with Reporter(report) as reporter:
        try:
            return _Run(inputs, config, reporter, should_stop).to_the_end()
        except torch.OutOfMemoryError as error:
            raise TrainingCrashed(f"the GPU's memory ran out: {str(error).splitlines()[0]}") from error


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self, inputs: TrainingInputs, config: TrainingConfig, reporter: Reporter, should_stop: ShouldStop
    ) -> None:
        self.started = time.monotonic()
        self.config = config.resolved()
        self.reporter = reporter
        self.should_stop = should_stop
        self.folder = RunFolder(inputs.run)
        self.log = TrainLog(self.folder.log_file)
        self.adopted = self.folder.adopt(inputs.earlier)
        self.device = pick_device(self.config.device)
        self.threads = set_threads(self.config.threads)
        be_deterministic(self.device)
        self.recipe = self._new_recipe()
        pieces = read_pieces(
            inputs.experiment, self.recipe.sample_rate, self.recipe.content_width, filelist=inputs.filelist
        )
        self.split: Split = split_pieces(pieces, self.config.validation_split, self.config.seed)
        self.data = fingerprint(pieces)
        batch_size = self.config.batch_size or 1
        self.batches = Batches(
            self.split.training, batch_size, self.config.seed, self.recipe.segment_frames, self.recipe.sample_rate
        )
        self.held_out = held_out_batches(
            self.split.held_out, batch_size, self.recipe.segment_frames, most=MOST_HELD_OUT_CROPS
        )
        self.step = 0
        self.total = 0
        self.epoch_length = self.batches.steps_per_epoch
        self.losses: dict[str, float] = {}
        self.validation: float | None = None
        self.best_step: int | None = None
        self.best_loss: float | None = None
        self.skipped = 0
        self.bad_in_a_row = 0
        self.ended: str | None = None
        self.speed = Speed()

    def to_the_end(self) -> TrainingResult:
        try:
            return self._to_the_end()
        finally:
            self.log.close()

    def _to_the_end(self) -> TrainingResult:
        self._tell("prepare")
        self._obey()
        plan = self.folder.read_plan()
        if plan is None:
            self._choose_threads()
            self.total = self._decide_length()
            plan = self._plan()
            self.folder.write_plan(plan)
        check_same_run(plan, self.config, self.data)
        self.total = int(plan["total_steps"])
        if self.config.threads is None:
            self.threads = set_threads(int(plan["threads"]))
        self.recipe = self._new_recipe()
        self.recipe.prepare(self.total, self.epoch_length)
        resumed = self._resume()
        metrics = MetricsLog(self.folder.metrics_file, self.step)
        self.log(
            f"{self.config.preset} on {self.device} with {self.threads} threads: step {self.step} of {self.total}, "
            f"{len(self.split.training)} pieces, {len(self.split.held_out)} held out by {self.split.by}"
        )
        try:
            self._loop(metrics)
        finally:
            metrics.close()
        return self._finish(resumed)

    # -- before the first step -----------------------------------------------------------------------------------------

    def _new_recipe(self) -> Recipe:
        _seed_all(stream_seed(self.config.seed, "weights", 0))
        return build_recipe(self.config.preset, self.config, self.device)

    def _plan(self) -> dict[str, Any]:
        return {
            "config": self.config.as_dict(),
            "total_steps": self.total,
            "steps_per_epoch": self.epoch_length,
            "dataset": self.data,
            "split": self.split.as_dict(),
            "device": str(self.device),
            "threads": self.threads,
            "torch": torch.__version__,
            "warnings": self.config.warnings(),
        }

    def _choose_threads(self) -> None:
        if self.config.threads is not None or self.device.type != "cpu" or self.threads == 1:
            return
        self.recipe.prepare(1000, self.epoch_length)
        times = trial_of_threads(self._trial_step, self.threads)
        self.threads = set_threads(min(times, key=lambda count: times[count]))
        self.log(f"{self.threads} threads: " + ", ".join(f"{n}: {t:.3f} s per step" for n, t in times.items()))

    def _trial_step(self, number: int) -> float:
        """Seconds of one step whose result is thrown away."""
        self._tell("measure")
        self._obey()
        before = time.monotonic()
        try:
            self.recipe.step(self.batches(number).to(self.device))
        except BadStep:
            pass
        return time.monotonic() - before

    def _decide_length(self) -> int:
        """Steps of the whole run; decided once and kept in the plan."""
        if self.config.total_steps is not None:
            return self.config.total_steps
        if self.config.train_seconds is not None:
            return self._steps_within(self.config.train_seconds)
        return (self.config.epochs or 1) * self.epoch_length

    def _steps_within(self, seconds: float) -> int:
        begun = time.monotonic()
        self.recipe.prepare(1000, self.epoch_length)
        per_step = trial_of_speed(self._trial_step, seconds)
        before = time.monotonic()
        self._validation_losses()
        validations = VALIDATIONS_PER_RUN * (time.monotonic() - before)
        left = seconds - (time.monotonic() - begun) - validations
        steps = max(int(0.95 * left / per_step), FEWEST_STEPS)
        self.log(f"{per_step:.3f} s per step: {steps} steps in {seconds:.0f} s")
        return steps

    def _resume(self) -> int | None:
        checkpoint = load_newest(self.folder.checkpoints, self.recipe)
        if checkpoint is None:
            return None
        self.step = checkpoint.step
        self.losses = checkpoint.metrics
        self.best_step = checkpoint.progress["best_step"]
        self.best_loss = checkpoint.progress["best_loss"]
        self.validation = checkpoint.progress["validation"]
        self.skipped = checkpoint.progress["skipped"]
        self.ended = checkpoint.progress["ended"]
        self.log(f"resumed from the checkpoint of step {self.step}")
        return self.step

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _loop(self, metrics: MetricsLog) -> None:
        interval = self.config.checkpoint_every_seconds
        saved_at = time.monotonic()
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as loader:
            ahead = loader.submit(self.batches, self.step)
            while self.step < self.total and self.ended is None:
                self._obey()
                self._watch_the_clock()
                if self.ended is not None:
                    break
                batch = ahead.result()
                ahead = loader.submit(self.batches, self.step + 1)
                self._one_step(batch.to(self.device), metrics)
                if self._is_validation_due():
                    self._validate(metrics)
                every = self.config.checkpoint_every_steps
                by_steps = every is not None and self.step % every == 0
                by_time = every is None and time.monotonic() - saved_at >= interval
                if (by_steps or by_time) and self.bad_in_a_row == 0 and self.step < self.total:
                    before = time.monotonic()
                    self._checkpoint()
                    saved_at = time.monotonic()
                    interval = max(self.config.checkpoint_every_seconds, CHECKPOINT_SHARE * (saved_at - before))
        if self.ended is None:
            self.ended = "complete"

    def _one_step(self, batch: Any, metrics: MetricsLog) -> None:
        _seed_all(stream_seed(self.config.seed, "step", self.step))
        try:
            self.losses = self.recipe.step(batch)
            self.bad_in_a_row = 0
            told: dict[str, Any] = dict(self.losses)
        except BadStep as bad:
            self.skipped += 1
            self.bad_in_a_row += 1
            told = {"skipped": str(bad)}
            self.log(f"step {self.step} is skipped: {bad}")
            if self.bad_in_a_row >= self.config.bad_steps_in_a_row:
                raise TrainingDiverged(
                    f"{self.bad_in_a_row} steps in a row up to step {self.step} were not finite ({bad})"
                ) from bad
        self.step += 1
        epoch = self._epoch()
        if self.step % self.epoch_length == 0:
            self.recipe.end_epoch()
        metrics.write(step=self.step, epoch=epoch, **told)
        self.speed.tick()
        self._tell("train")

    def _is_validation_due(self) -> bool:
        if not self.held_out:
            return False
        return self.step % self._validation_interval() == 0 or self.step == self.total

    def _validation_interval(self) -> int:
        given = self.config.validate_every_steps
        return given if given is not None else max(self.epoch_length, -(-self.total // VALIDATIONS_PER_RUN))

    def _validation_losses(self) -> dict[str, float]:
        """Mean over the held-out crops; always the same crops and the same noise."""
        sums: dict[str, float] = {}
        count = 0
        for number, crops in enumerate(self.held_out):
            generator = torch.Generator().manual_seed(stream_seed(self.config.seed, "validation", number))
            _seed_all(stream_seed(self.config.seed, "validation", number))
            batch = collate(crops, self.recipe.segment_frames, self.recipe.hop_length, self.step, generator)
            try:
                losses = self.recipe.validate(batch.to(self.device))
            except BadStep:
                return {}
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(crops)
            count += len(crops)
            self._tell("validate" if self.total else "measure")
        return {name: value / count for name, value in sums.items()}

    def _validate(self, metrics: MetricsLog) -> None:
        losses = self._validation_losses()
        if not losses:
            return
        value = shown_loss(losses)
        self.validation = value
        metrics.write(step=self.step, epoch=self._epoch(), validation=losses)
        if value == value and (self.best_loss is None or value < self.best_loss):
            self.best_loss, self.best_step = value, self.step
            write_voice(self.folder.best(self.step), *self.recipe.export())
            return
        patience = self.config.early_stopping_patience
        if patience and self.best_step is not None:
            allowed = patience * max(self.epoch_length, self._validation_interval())
            if self.step - self.best_step >= allowed and self.step < self.total:
                self.ended = "early_stop"
                self.log(f"no improvement since step {self.best_step}: stopped at step {self.step}")

    def _watch_the_clock(self) -> None:
        limit = self.config.time_limit_seconds
        if time.monotonic() - self.started < limit:
            return
        self.log(f"the time limit of {limit:.0f} s is reached at step {self.step}")
        if self.config.best_on_timeout and self.step > 0:
            self.ended = "time_limit"
            return
        self._keep_state()
        raise TrainingTimeout(
            f"time_limit_seconds of {limit:g} is over at step {self.step} of {self.total}; the state is kept",
            field="time_limit_seconds",
        )

    def _obey(self) -> None:
        reason = self.should_stop()
        if reason is None:
            return
        self._keep_state()
        self.log(f"stopped at step {self.step}: {reason.value}")
        if reason is StopReason.CANCEL:
            raise Cancelled(f"training was cancelled at step {self.step}")
        raise Preempted(f"training was stopped at step {self.step}; its state is kept")

    def _keep_state(self) -> None:
        """A checkpoint before stopping, unless there is nothing to keep, or it would keep the cause of bad steps."""
        if self.step > 0 and self.bad_in_a_row == 0:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._tell("checkpoint")
        save_checkpoint(
            self.folder.checkpoints,
            self.recipe,
            step=self.step,
            epoch=self._epoch(),
            config=self.config.as_dict(),
            progress={
                "best_step": self.best_step,
                "best_loss": self.best_loss,
                "validation": self.validation,
                "skipped": self.skipped,
                "ended": self.ended,
            },
            metrics=self.losses,
            keep=self.config.keep_checkpoints,
        )
        kept = {path.name for path in self._best_in_use()}
        for path in self.folder.root.glob("best-*.pth"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _best_in_use(self) -> list[Path]:
        """The best voices that this state or an older kept checkpoint still names."""
        steps = {self.best_step, *(each.progress.get("best_step") for each in listed(self.folder.checkpoints))}
        return [self.folder.best(step) for step in steps if step is not None]

    # -- after the last step -------------------------------------------------------------------------------------------

    def _finish(self, resumed: int | None) -> TrainingResult:
        self._checkpoint()
        self._tell("export")
        voice = self.folder.root / "voice.pth"
        best = self.folder.best(self.best_step) if self.best_step is not None else None
        if best is not None and best.is_file() and self.best_step != self.step:
            voice_step = self.best_step or 0
            with best.open("rb") as source:
                sha256 = write_atomically(voice, lambda stream: shutil.copyfileobj(source, stream))
        else:
            voice_step = self.step
            sha256 = write_voice(voice, *self.recipe.export())
        seconds = time.monotonic() - self.started
        self.log(f"{self.ended} after {self.step} steps and {seconds:.1f} s; the voice is of step {voice_step}")
        self._tell("done", now=True)
        return TrainingResult(
            voice=voice,
            sha256=sha256,
            voice_step=voice_step,
            steps=self.step,
            total_steps=self.total,
            epochs=self._epoch(),
            ended=self.ended or "complete",
            losses=self.losses,
            best_step=self.best_step,
            best_loss=self.best_loss,
            skipped_steps=self.skipped,
            seconds=seconds,
            resumed_from=resumed,
            preset=self.config.preset,
            sample_rate=self.recipe.sample_rate,
            content_width=self.recipe.content_width,
            device=str(self.device),
            split=self.split.as_dict(),
            warnings=self.config.warnings(),
        )

    def _epoch(self) -> int:
        """Counted from 1; the epoch that the last done step belongs to."""
        return max(self.step - 1, 0) // self.epoch_length + 1

    def _tell(self, phase: Phase, *, now: bool = False) -> None:
        speed = self.speed.per_second
        eta = (self.total - self.step) / speed if speed and self.total else None
        self.reporter.tell(
            Progress(
                phase=phase,
                step=self.step,
                total_steps=self.total,
                epoch=self._epoch(),
                losses=self.losses,
                loss=shown_loss(self.losses) if self.losses else None,
                validation=self.validation,
                best_step=self.best_step,
                skipped_steps=self.skipped,
                steps_per_second=speed,
                eta_seconds=eta,
            ),
            now=now,
        )


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
