"""How is a voice trained, whatever its network, so that it can be stopped, killed and resumed at any step?"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import torch

from libs.common.errors import Cancelled, Preempted, TrainingCrashed, TrainingDiverged, TrainingTimeout
from libs.voice.batch import Batch, stream_seed
from libs.voice.batching import Batches
from libs.voice.checkpoint import newest_step
from libs.voice.device import be_deterministic, pick_device, set_threads, usable_cores
from libs.voice.faults import BadStep
from libs.voice.held_out import HeldOut
from libs.voice.learning import Learner, seed_all
from libs.voice.memory import first_line, is_out_of_memory
from libs.voice.progress import Phase, Report, Reporter, Speed
from libs.voice.recipe import Recipe, build_recipe, shown_loss
from libs.voice.run_record import Curves, RunFolder, TrainLog, check_same_run
from libs.voice.team import Team, join_team, own_device
from libs.voice.timetable import Clock, Timetable
from libs.voice.training_bases import check_same_bases, with_bases
from libs.voice.training_config import TrainingConfig
from libs.voice.training_data import read_speech
from libs.voice.training_plan import FINISH_COST, Course, Trial, validation_interval
from libs.voice.training_record import plan_of, result_of
from libs.voice.training_room import bytes_needed, check_room
from libs.voice.training_run import ShouldStop, StopReason, TrainingInputs, TrainingResult
from libs.voice.training_store import Standing, Store

__all__ = ["ShouldStop", "StopReason", "TrainingInputs", "TrainingResult", "train"]

_GO_ON, _PREEMPT, _CANCEL = 0, 1, 2


def train(
    inputs: TrainingInputs,
    config: TrainingConfig,
    report: Report,
    should_stop: ShouldStop = lambda: None,
    clock: Clock = time.monotonic,
) -> TrainingResult:
    """Train to the end, from the newest checkpoint if there is one; blocking.

    `report` is called at least every 2 s (from this thread or a helper, never both at once) and at the end.
    `should_stop` is asked between steps; limit and intervals go by `clock`. On a CPU with the same `threads`, the
    weights are the same bit by bit however often the run was killed. With `processes` above 1 this is one process of a
    torchrun group, called alike in each; the first one writes and reports.

    Raises Cancelled, Preempted and TrainingTimeout, each after a checkpoint; TrainingDiverged, TrainingCrashed (out of
    memory), StorageFull, Conflict (another run's folder), the Dataset… errors, WorkFailed (checkpoints broken or gone),
    GpuUnavailable, ModelFileRefused (a base that does not fit), InvalidInput.
    """
    config, times = config.resolved(), Timetable(config, clock)
    device = pick_device(own_device(config.device))
    team = join_team(config.processes, device)
    try:
        with Reporter(report if team.leads else lambda _: None) as reporter:
            return _Run(inputs, config, device, team, reporter, should_stop, times).to_the_end()
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingCrashed(f"memory ran out: {first_line(error)}") from error
        raise
    finally:
        team.leave()


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self,
        inputs: TrainingInputs,
        config: TrainingConfig,
        device: torch.device,
        team: Team,
        reporter: Reporter,
        should_stop: ShouldStop,
        times: Timetable,
    ) -> None:
        self.times = times
        self.config = config
        self.reporter = reporter
        self.should_stop = should_stop
        self.device = device
        self.team = team
        self.folder = RunFolder(inputs.run)
        self.log = TrainLog(self.folder.log_file, writes=team.leads)
        if team.leads:
            self.folder.adopt(inputs.earlier)
        team.wait()
        begun, has_state = self.folder.read_plan(), newest_step(self.folder.checkpoints) is not None
        self.built = with_bases(config, inputs.bases, begun, encoder=inputs.encoder, has_checkpoint=has_state)
        self.threads = set_threads(config.threads or max(1, usable_cores() // config.processes))
        be_deterministic(device)
        self.speech = read_speech(inputs, config)
        self.split = self.speech.split
        self.recipe = self._new_recipe()
        self.now = Standing(part=config.batch_size or 1)
        self.batches = Batches(
            self.split.training,
            self.now.part * config.accumulation * config.processes,
            config.seed,
            self.recipe.segment_frames,
            self.recipe.sample_rate,
            rank=team.rank,
            ranks=team.size,
        )
        self.epoch_length = self.batches.steps_per_epoch
        self.learner = self._new_learner()
        self.held_out = HeldOut(self.split.held_out, self.now.part, config.seed)
        self.curves: Curves | None = None
        self.course = Course()
        self.bad_in_a_row = 0
        self.speed = Speed()

    @property
    def total(self) -> int:
        """Steps of the whole run; 0 until that is known."""
        return self.course.total

    def to_the_end(self) -> TrainingResult:
        self._tell("prepare")
        self._obey()
        if self.team.most([self.folder.read_plan() is None])[0]:
            self._decide()
        plan = self.folder.read_plan() or {}
        check_same_run(plan, self.config, self.speech.fingerprint)
        check_same_bases(plan, self.recipe.bases())
        self.bases = plan.get("bases", {})
        self.course = self._course(int(plan["total_steps"]), float(plan.get("finish_cost", FINISH_COST)))
        if self.config.threads is None:
            self.threads = set_threads(int(plan["threads"]))
        self.recipe = self._new_recipe()
        self.recipe.prepare(self.total, self.epoch_length)
        self.store = Store(self.folder, self.recipe, self.config)
        resumed = self._resume()
        self.learner = self._new_learner()
        self.interval = validation_interval(self.config, self.total, self.epoch_length)
        if self.team.leads:
            self.curves = Curves(self.folder, self.now.step, tensorboard=self.config.tensorboard)
            if self.damaged:
                self.log(f"damaged checkpoints were set aside: {', '.join(self.damaged)}")
                self.curves.event(self.now.step, self._epoch(), damaged_checkpoints=self.damaged)
        self.log(
            f"{self.config.preset} on {self.device} with {self.threads} threads: step {self.now.step} of {self.total}, "
            f"{len(self.split.training)} pieces, {len(self.split.held_out)} held out by {self.split.by}"
        )
        try:
            self._loop()
        finally:
            if self.curves is not None:
                self.curves.close()
        return self._finish(resumed)

    # -- before the first step -----------------------------------------------------------------------------------------

    def _new_recipe(self) -> Recipe:
        seed_all(stream_seed(self.config.seed, "weights", 0))
        return build_recipe(self.config.preset, self.built, self.device, self.team, self.speech.places)

    def _new_learner(self) -> Learner:
        return Learner(
            self.recipe,
            self.batches,
            self.device,
            seed=self.config.seed,
            most=self.now.part,
            augment=self.config.augmentation,
            on_smaller=self._part_is_smaller,
        )

    def _part_is_smaller(self, part: int, said: str) -> None:
        parts = -(-self.batches.batch_size // (part * self.team.size))
        self.now.part = part
        self.log(f"memory ran out at step {self.now.step} ({said}): each step is made in {parts} parts of {part} now")
        if self.curves is not None:
            self.curves.event(self.now.step, self._epoch(), part=part, parts=parts, out_of_memory=said)

    def _decide(self) -> None:
        """Measure, and write down what holds for the whole run, however often it is interrupted."""
        if self.team.leads:
            check_room(self.folder.root, bytes_needed(self.recipe, self.config))

        def before_each() -> None:
            self._tell("measure")
            self._obey()

        trial = Trial(self.learner, self.team, before_each, self.log)
        if self.config.threads is None and self.device.type == "cpu" and self.threads > 1 and self.team.size == 1:
            self.recipe.prepare(1000, self.epoch_length)
            self.threads = trial.threads(self.threads)
        if self.config.total_steps is not None:
            total = self.config.total_steps
        elif self.config.train_seconds is not None:
            self.recipe.prepare(1000, self.epoch_length)
            total = trial.steps_within(
                self.config.train_seconds, self._held_out_losses, self.config.adversarial_steps_of
            )
        else:
            total = (self.config.epochs or 1) * self.epoch_length
        self.course = self._course(total, trial.finish_cost)
        if self.team.leads:
            self.folder.write_plan(plan_of(self))
        self.team.wait()

    def _course(self, total: int, finish_cost: float) -> Course:
        return Course(total, total - self.config.adversarial_steps_of(total), finish_cost)

    def _resume(self) -> int | None:
        # the first process may set broken checkpoints aside; the others look when that is done
        before = self.store.damaged()
        checkpoint = self.store.resume(self.now) if self.team.leads else None
        self.damaged = [name for name in self.store.damaged() if name not in before]
        self.team.wait()
        if not self.team.leads:
            checkpoint = self.store.resume(self.now)
        if checkpoint is None:
            return None
        if self.now.finish_from is not None:
            self._finish_from(self.now.finish_from)
        self.log(f"resumed from the checkpoint of step {self.now.step}")
        return self.now.step

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        self.times.begin_steps()
        every = self.config.checkpoint_every_steps
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as loader:
            ahead = loader.submit(self.learner.batch, self.now.step)
            while self.now.step < self.total and self.now.ended is None:
                due = self._obey(self.times.checkpoint_is_due)
                if self.now.ended is not None:
                    break
                if due and self.bad_in_a_row == 0 and self.now.step > 0:
                    with self.times.saving():
                        self._checkpoint()
                batch = ahead.result()
                ahead = loader.submit(self.learner.batch, self.now.step + 1)
                self._one_step(batch)
                if self.now.step % self.interval == 0 or self.now.step == self.total:
                    self._validate()
                if every and self.now.step % every == 0 and self.bad_in_a_row == 0 and self.now.step < self.total:
                    self._checkpoint()
        if self.now.ended is None:
            self.now.ended = "complete"

    def _one_step(self, batch: Batch) -> None:
        rates = {name: float(each.param_groups[0]["lr"]) for name, each in self.recipe.optimizers().items()}
        bad: str | None = None
        try:
            self.now.losses = self.learner.learn(batch)
            self.bad_in_a_row = 0
        except BadStep as error:
            bad = str(error)
            self.now.skipped += 1
            self.bad_in_a_row += 1
            self.log(f"step {self.now.step} is skipped: {bad}")
            if self.bad_in_a_row >= self.config.bad_steps_in_a_row:
                raise TrainingDiverged(
                    f"{self.bad_in_a_row} steps in a row up to step {self.now.step} were not finite ({bad})"
                ) from error
        self.now.step += 1
        if self.now.step % self.epoch_length == 0:
            self.recipe.end_epoch()
        if self.curves is not None and bad is None:
            self.curves.step(self.now.step, self._epoch(), self.now.losses, rates)
        elif self.curves is not None:
            self.curves.event(self.now.step, self._epoch(), skipped=bad)
        if self.recipe.is_finishing(self.now.step) and not self.recipe.is_finishing(self.now.step - 1):
            self.speed = Speed()  # that of the steps before says nothing about those that come
        self.speed.tick()
        self._tell("train")

    def _held_out_losses(self) -> dict[str, float]:
        phase: Phase = "validate" if self.total else "measure"
        return self.held_out.losses(self.recipe, self.device, self.now.step, lambda: self._tell(phase))

    def _validate(self) -> None:
        """The first process judges, all stop when it finds that nothing gets better."""
        if not self.held_out:
            return
        stop = self.team.leads and self._has_stalled()
        if not self.team.most([stop])[0]:
            return
        said = f"no improvement since step {self.now.best.step}"
        if not self.recipe.is_finishing(self.now.step) and self.recipe.is_finishing(self.total - 1):
            self.now.finish_from = self.now.step
            self._finish_from(self.now.step)
            self.log(f"{said}: the finish begins at step {self.now.step}, {self.total} are the last")
        else:
            self.now.ended = "early_stop"
            self.log(f"{said}: stopped at step {self.now.step}")

    def _finish_from(self, step: int) -> None:
        self.course = self.course.finished_from(step)
        self.recipe.finish_from(step, self.total)

    def _has_stalled(self) -> bool:
        losses = self._held_out_losses()
        if not losses:
            return False
        if self.curves is not None:
            self.curves.validation(self.now.step, self._epoch(), losses)
        is_finish = self.recipe.is_finishing(self.now.step - 1)
        is_kept = self.now.best.follows if is_finish else self.now.best.improves
        if is_kept(shown_loss(losses), self.now.step):
            self.store.keep_best(self.now.step)
            return False
        patience = self.config.early_stopping_patience
        if not patience or self.now.best.step is None or self.now.step >= self.total:
            return False
        since = max(self.now.best.step, self.course.first) if is_finish else self.now.best.step
        return self.now.step - since >= patience * max(self.epoch_length, self.interval)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def _obey(self, is_due: bool = False) -> bool:
        """Stop when asked to or when the time is over; else whether a checkpoint is due. All processes agree."""
        reason = self.should_stop()
        wish = _GO_ON if reason is None else _CANCEL if reason is StopReason.CANCEL else _PREEMPT
        over = self.total > 0 and self.times.is_over
        wish, is_over, due = (int(value) for value in self.team.most([wish, over, is_due]))
        if wish != _GO_ON:
            self._keep_state()
            self.log(f"stopped at step {self.now.step}: {'cancel' if wish == _CANCEL else 'preempt'}")
            if wish == _CANCEL:
                raise Cancelled(f"training was cancelled at step {self.now.step}")
            raise Preempted(f"training was stopped at step {self.now.step}; its state is kept")
        if is_over and self.now.step < self.total and self.now.ended is None:
            self._time_is_over()
        return bool(due)

    def _time_is_over(self) -> None:
        limit = self.config.time_limit_seconds
        self.log(f"the time limit of {limit:.0f} s is reached at step {self.now.step}")
        if self.config.best_on_timeout and self.now.step > 0:
            if self.now.step % self.interval:  # what was learnt since the last validation may be the best
                self._validate()
            self.now.ended = "time_limit"
            return
        self._keep_state()
        raise TrainingTimeout(
            f"time_limit_seconds of {limit:g} is over at step {self.now.step} of {self.total}; the state is kept",
            field="time_limit_seconds",
        )

    def _keep_state(self) -> None:
        """A checkpoint before stopping, unless there is nothing to keep, or it would keep the cause of bad steps."""
        if self.now.step > 0 and self.bad_in_a_row == 0:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._tell("checkpoint")
        if self.team.leads:
            self.store.save(self.now, self._epoch())
        self.team.wait()

    # -- after the last step -------------------------------------------------------------------------------------------

    def _finish(self, resumed: int | None) -> TrainingResult:
        voice, voice_step, sha256 = self.folder.root / "voice.pth", self.now.step, ""
        self._checkpoint()
        self._tell("export")
        if self.team.leads:
            voice, voice_step, sha256 = self.store.publish(self.now, self._epoch())
        seconds = self.times.seconds
        self.log(f"{self.now.ended} after {self.now.step} steps and {seconds:.1f} s; the voice is of step {voice_step}")
        self._tell("done", now=True)
        return result_of(self, voice, voice_step, sha256, epochs=self._epoch(), seconds=seconds, resumed=resumed)

    def _epoch(self) -> int:
        """Counted from 1; the epoch that the last done step belongs to."""
        return max(self.now.step - 1, 0) // self.epoch_length + 1

    def _tell(self, phase: Phase, *, now: bool = False) -> None:
        progress = self.now.progress(phase, self.course, self._epoch(), self.speed.per_second)
        self.reporter.tell(progress, now=now)
