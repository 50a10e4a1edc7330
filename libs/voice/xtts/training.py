"""How is XTTS fine-tuned, so that it can be stopped, killed and resumed at any step?

The same folders as every run (libs/voice/run_record.py, checkpoint.py): a plan, checkpoints that are believed only when
their checksum fits, a curve, and at the end the voice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from libs.common.errors import Cancelled, Conflict, Preempted, TrainingCrashed, TrainingDiverged, TrainingTimeout
from libs.voice.atomic import save_tensors, write_atomically
from libs.voice.batch import stream_seed
from libs.voice.checkpoint import listed, load_newest, save_checkpoint
from libs.voice.device import pick_device, pick_precision, set_threads
from libs.voice.faults import BadStep
from libs.voice.held_out import Best
from libs.voice.memory import first_line, is_out_of_memory
from libs.voice.progress import Phase, Progress, Report, Reporter, Speed
from libs.voice.recipe import check_losses
from libs.voice.run_record import Curves, RunFolder, TrainLog
from libs.voice.safe_load import load_tensors
from libs.voice.training_room import SPARE_BYTES, check_room
from libs.voice.training_run import ShouldStop, StopReason
from libs.voice.xtts.base import BaseModel
from libs.voice.xtts.batches import read_wave
from libs.voice.xtts.config import FineTuning
from libs.voice.xtts.exporting import write_voice
from libs.voice.xtts.learning import Learner
from libs.voice.xtts.network import TrainingNetwork
from libs.voice.xtts.sides import make_sides, wav_of
from libs.voice.xtts.speech import Clip

Clock = Callable[[], float]
_MAY_CHANGE = {"time_limit_seconds", "best_on_timeout", "device", "threads", "checkpoint_every_seconds"}


@dataclass(frozen=True)
class Inputs:
    """Where a run reads and writes. `clips`: each with its cleaned text, as the dataset's check left them."""

    base: BaseModel
    clips: Sequence[tuple[Clip, str]]
    wavs: Path
    run: Path
    earlier: tuple[Path, ...] = ()


def train(
    inputs: Inputs,
    config: FineTuning,
    report: Report,
    should_stop: ShouldStop = lambda: None,
    clock: Clock = time.monotonic,
) -> dict[str, Any]:
    """Fine-tunes to the end, from the newest whole checkpoint if there is one; blocking. What it returns is for JSON.

    `report` is called at least every 2 s and at the end, `should_stop` between steps.

    Raises Cancelled, Preempted and TrainingTimeout, each after a checkpoint; DatasetTooShort (with the reason for each
    clip that the library would drop), TrainingDiverged, TrainingCrashed (out of memory), StorageFull, Conflict (another
    run's folder), WorkFailed (checkpoints broken or gone), ModelFileRefused, GpuUnavailable.
    """
    try:
        with Reporter(report) as reporter:
            return _Run(inputs, config, reporter, should_stop, clock).to_the_end()
    except Exception as error:
        if is_out_of_memory(error):
            raise TrainingCrashed(f"memory ran out: {first_line(error)}") from error
        raise


class _Run:
    """The state of one call of `train`; what a checkpoint keeps of it are `modules` and `optimizers`."""

    def __init__(
        self, inputs: Inputs, config: FineTuning, reporter: Reporter, should_stop: ShouldStop, clock: Clock
    ) -> None:
        self.step = self.total = self.skipped = self.bad_in_a_row = 0
        self.epoch_length = 1
        self.losses: dict[str, float] = {}
        self.best = Best()
        self.ended: str | None = None
        self.speed = Speed()
        self.inputs = inputs
        self.clock = clock
        self.began = clock()
        self.reporter = reporter
        self.should_stop = should_stop
        self.device = pick_device(config.device)
        self.config = config.on(self.device.type)
        self.size = self.config.batch_size or 1
        self.parts = self.config.accumulation or 1
        self.precision = pick_precision(self.device, "auto")
        self.folder = RunFolder(inputs.run)
        self.log = TrainLog(self.folder.log_file)
        self.folder.adopt(inputs.earlier)
        self._tell("prepare")
        self.network = TrainingNetwork(inputs.base, self.device)
        self.threads = set_threads(config.threads)
        torch.manual_seed(stream_seed(config.seed, "weights", 0))
        self.optimizer = torch.optim.AdamW(
            self.network.groups(config.weight_decay), lr=config.learning_rate, betas=(0.9, 0.96), eps=1e-8
        )
        self.learner = Learner(
            self.network,
            self.optimizer,
            seed=config.seed,
            precision=self.precision,
            most=self.size,
            say=self.log,
            alive=lambda: self._tell("train"),
        )

    # -- what a checkpoint keeps ---------------------------------------------------------------------------------------

    def modules(self) -> dict[str, torch.nn.Module]:
        return {"gpt": self.network.gpt}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        return {"gpt": self.optimizer}

    def schedulers(self) -> dict[str, Any]:
        return {}

    # -- the whole -----------------------------------------------------------------------------------------------------

    def to_the_end(self) -> dict[str, Any]:
        self._obey()
        language = self.config.language
        self.sides = make_sides(
            self.inputs.clips,
            self.inputs.wavs,
            lambda text: self.network.tokens(text, language),
            self.config.validation_split,
            self.config.seed,
        )
        self.learnt, self.judged = self.sides.learnt, self.sides.judged
        self.epoch_length = -(-self.learnt.steps_per_epoch(self.size) // self.parts)
        plan = self._plan()
        self.total = int(plan["total_steps"])
        resumed = self._resume()
        self.curves = Curves(self.folder, self.step, tensorboard=False)
        self.log(
            f"xtts on {self.device} with {self.threads} threads: step {self.step} of {self.total}, {len(self.learnt)} "
            f"clips, {len(self.judged)} held out, {len(self.sides.refused)} refused, {self.size} x {self.parts} a step"
        )
        try:
            self._loop()
        finally:
            self.curves.close()
        return self._finish(resumed)

    def _plan(self) -> dict[str, Any]:
        """What holds for the whole run, however often it is interrupted; checked against a run that has begun."""
        config = {name: value for name, value in self.config.as_dict().items() if name not in _MAY_CHANGE}
        begun = self.folder.read_plan()
        if begun is not None:
            same = begun.get("config") == config and begun.get("split") == self.sides.names
            if not same:
                raise Conflict("this run began with other options or clips; start a new one to change them")
            return begun
        weights = sum(value.nbytes for value in self.network.gpt.state_dict().values())
        voice = self.inputs.base.weights.stat().st_size
        check_room(
            self.folder.root, 3 * weights * (self.config.keep_checkpoints + 1) + 2 * weights + voice + SPARE_BYTES
        )
        plan = {
            "preset": "xtts-v2",
            "config": config,
            "total_steps": self.config.total_steps or self.config.epochs * self.epoch_length,
            "steps_per_epoch": self.epoch_length,
            "split": self.sides.names,
            "device": str(self.device),
            "torch": torch.__version__,
        }
        self.folder.write_plan(plan)
        return plan

    def _resume(self) -> int | None:
        checkpoint = load_newest(self.folder.checkpoints, self)
        for name in sorted(path.name for path in self.folder.checkpoints.glob("*.broken*")):
            self.log(f"a damaged checkpoint was set aside: {name}")
        if checkpoint is None:
            self.folder.check_nothing_lost()
            return None
        kept = checkpoint.progress
        self.step, self.losses, self.skipped = checkpoint.step, checkpoint.metrics, int(kept["skipped"])
        self.best = Best(kept["best_step"], kept["best_loss"], kept["validation"])
        self.ended, self.learner.most = kept["ended"], min(int(kept["part"]), self.size)
        self.log(f"resumed from the checkpoint of step {self.step}")
        return self.step

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        saved = self.clock()
        while self.step < self.total and self.ended is None:
            self._obey()
            if self.ended is not None:
                break
            if self.clock() - saved >= self.config.checkpoint_every_seconds and self.step and not self.bad_in_a_row:
                self._checkpoint()
                saved = self.clock()
            self._one_step()
            if self.step % self.epoch_length == 0 or self.step == self.total:
                self._judge()
        self.ended = self.ended or "complete"

    def _one_step(self) -> None:
        first = self.step * self.parts
        batches = [self.learnt.batch(first + part, self.size) for part in range(self.parts)]
        bad: str | None = None
        try:
            self.losses = self.learner.learn([item for batch in batches for item in batch], self.step)
            self.bad_in_a_row = 0
        except BadStep as error:
            bad, self.skipped, self.bad_in_a_row = str(error), self.skipped + 1, self.bad_in_a_row + 1
            self.log(f"step {self.step} is skipped: {bad}")
            if self.bad_in_a_row >= self.config.bad_steps_in_a_row:
                raise TrainingDiverged(
                    f"{self.bad_in_a_row} steps in a row up to step {self.step} were not finite ({bad})"
                ) from error
        self.step += 1
        if bad is None:
            self.curves.step(self.step, self._epoch(), self.losses, {"gpt": self.config.learning_rate})
        else:
            self.curves.event(self.step, self._epoch(), skipped=bad)
        self.speed.tick()
        self._tell("train")

    @torch.no_grad()
    def _judge(self) -> None:
        """The loss on held-out clips; keeps the best state, and ends the run when nothing gets better."""
        self.network.gpt.eval()
        sums: dict[str, float] = {}
        items = self.judged.held_out()
        for item in items:
            try:
                values = check_losses(self.network.losses([item], masked=False, precision=self.precision))
            except BadStep:
                return
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / len(items)
            self._tell("validate")
        self.curves.validation(self.step, self._epoch(), sums)
        if self.best.improves(sums["loss"], self.step):
            self._keep_best()
            return
        patience = self.config.early_stopping_patience * self.epoch_length
        since = self.step - (self.best.step or 0)
        if patience and self.best.step is not None and since >= patience and self.step < self.total:
            self.ended = "early_stop"
            self.log(f"no improvement since step {self.best.step}: stopped at step {self.step}")

    def _keep_best(self) -> None:
        state = self.network.gpt.state_dict()
        write_atomically(self.folder.best(self.step), lambda stream: save_tensors(state, stream))
        named = {each.progress.get("best_step") for each in listed(self.folder.checkpoints)} | {self.step}
        kept = {self.folder.best(step).name for step in named if step is not None}
        for path in self.folder.root.glob("best-*.pth"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    # -- stopping ------------------------------------------------------------------------------------------------------

    def _obey(self) -> None:
        reason = self.should_stop()
        if reason is not None:
            self._keep_state()
            what = "cancelled" if reason is StopReason.CANCEL else "stopped"
            self.log(f"{what} at step {self.step}")
            kind = Cancelled if reason is StopReason.CANCEL else Preempted
            raise kind(f"training was {what} at step {self.step}")
        if self.total and self.clock() - self.began >= self.config.time_limit_seconds and self.ended is None:
            if self.config.best_on_timeout and self.best.step is not None:
                self.ended = "time_limit"
                return
            self._keep_state()
            raise TrainingTimeout(
                f"the training did not end within {self.config.time_limit_seconds:g} s; step {self.step} is kept"
            )

    def _keep_state(self) -> None:
        if self.step and not self.bad_in_a_row:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._tell("checkpoint")
        save_checkpoint(
            self.folder.checkpoints,
            self,
            step=self.step,
            epoch=self._epoch(),
            config=self.config.as_dict(),
            progress={
                "best_step": self.best.step,
                "best_loss": self.best.loss,
                "validation": self.best.value,
                "skipped": self.skipped,
                "ended": self.ended,
                "part": self.learner.most,
            },
            metrics=self.losses,
            keep=self.config.keep_checkpoints,
        )
        self.folder.mark_checkpoint()

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self, resumed: int | None) -> dict[str, Any]:
        self._checkpoint()
        self._tell("export")
        best, step = self.folder.best(self.best.step or 0), self.step
        if self.best.step is not None and self.best.step != self.step and best.is_file():
            self.network.gpt.load_state_dict(load_tensors(best, max_bytes=16 * 2**30))
            step = self.best.step
        self.network.gpt.eval()
        chosen = self.sides.reference
        waves = [read_wave(wav_of(self.inputs.wavs, clip)) for clip in chosen]
        files = write_voice(self.folder.root, self.network.xtts, self.inputs.base, waves)
        self._tell("done")
        return {
            "files": files,
            "voice_step": step,
            "steps": self.step,
            "total_steps": self.total,
            "epochs": self._epoch(),
            "ended": self.ended,
            "losses": self.losses,
            "best_step": self.best.step,
            "best_loss": self.best.loss,
            "skipped_steps": self.skipped,
            "seconds": self.clock() - self.began,
            "resumed_from": resumed,
            "device": str(self.device),
            "batch": {"size": self.size, "accumulation": self.parts, "part": self.learner.most},
            "clips": {"learnt": len(self.learnt), "held_out": len(self.judged)},
            "refused": self.sides.refused,
            "reference": [clip.sha256 for clip in chosen],
            "languages": sorted(self.network.xtts.config.languages),
        }

    def _epoch(self) -> int:
        return -(-self.step // self.epoch_length)

    def _tell(self, phase: Phase) -> None:
        speed = self.speed.per_second
        self.reporter.tell(
            Progress(
                phase=phase,
                step=self.step,
                total_steps=self.total,
                epoch=self._epoch(),
                losses=self.losses,
                loss=self.losses.get("loss"),
                validation=self.best.value,
                best_step=self.best.step,
                skipped_steps=self.skipped,
                steps_per_second=speed,
                eta_seconds=(self.total - self.step) / speed if speed and self.total else None,
            ),
            now=phase == "done",
        )
