"""What of a run is on disk, and how does it come back? Checkpoints, the best voices, the final one, and RVC's pair."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from libs.voice.artefact import write_voice
from libs.voice.atomic import write_atomically
from libs.voice.checkpoint import Checkpoint, listed, load_newest, save_checkpoint
from libs.voice.held_out import Best
from libs.voice.progress import Phase, Progress
from libs.voice.recipe import Recipe, shown_loss
from libs.voice.run_record import RunFolder
from libs.voice.rvc.pretrained import write_training_pair
from libs.voice.training_config import TrainingConfig
from libs.voice.training_plan import Course


@dataclass
class Standing:
    """Where a run is: `step` steps are done. `part`: items in memory at once; `ended`: why it is over, or None;
    `finish_from`: the step after which its finish began early, or None."""

    part: int
    step: int = 0
    losses: dict[str, float] = field(default_factory=dict)
    best: Best = field(default_factory=Best)
    skipped: int = 0
    ended: str | None = None
    finish_from: int | None = None

    def progress(self, phase: Phase, course: Course, epoch: int, speed: float | None) -> Progress:
        """For whoever watches; `speed` in steps per second, of such as the last one."""
        done, left = course.work(self.step)
        return Progress(
            phase=phase,
            step=self.step,
            total_steps=course.total,
            epoch=epoch,
            losses=self.losses,
            loss=shown_loss(self.losses) if self.losses else None,
            validation=self.best.value,
            best_step=self.best.step,
            skipped_steps=self.skipped,
            steps_per_second=speed,
            eta_seconds=left / speed if speed and course.total else None,
            fraction=done / (done + left) if done + left else 0.0,
        )


class Store:
    """Writes and reads the state of one run. With several processes only the first one writes."""

    def __init__(self, folder: RunFolder, recipe: Recipe, config: TrainingConfig) -> None:
        self.folder = folder
        self._recipe = recipe
        self._config = config

    def resume(self, standing: Standing) -> Checkpoint | None:
        """Bring the recipe and `standing` to the newest whole checkpoint; None when there never was one.

        Raises WorkFailed when all are broken or gone.
        """
        checkpoint = load_newest(self.folder.checkpoints, self._recipe)
        if checkpoint is None:
            self.folder.check_nothing_lost()
            return None
        kept = checkpoint.progress
        standing.step = checkpoint.step
        standing.losses = checkpoint.metrics
        standing.best = Best(kept["best_step"], kept["best_loss"], kept["validation"], kept.get("lowest_loss"))
        standing.finish_from = kept.get("finish_from")
        standing.skipped = kept["skipped"]
        standing.ended = kept["ended"]
        standing.part = kept.get("part", standing.part)
        return checkpoint

    def damaged(self) -> list[str]:
        """Names of checkpoints that were set aside."""
        return sorted(path.name for path in self.folder.checkpoints.glob("*.broken*"))

    def save(self, standing: Standing, epoch: int) -> None:
        """A checkpoint; best voices that no checkpoint names any more go. Raises StorageFull."""
        save_checkpoint(
            self.folder.checkpoints,
            self._recipe,
            step=standing.step,
            epoch=epoch,
            config=self._config.as_dict(),
            progress={
                "best_step": standing.best.step,
                "best_loss": standing.best.loss,
                "validation": standing.best.value,
                "lowest_loss": standing.best.lowest,
                "finish_from": standing.finish_from,
                "skipped": standing.skipped,
                "ended": standing.ended,
                "part": standing.part,
            },
            metrics=standing.losses,
            keep=self._config.keep_checkpoints,
        )
        self.folder.mark_checkpoint()
        if self._config.rvc_checkpoints == "every":
            self._write_pair(standing.step, epoch)
        named = {standing.best.step, *(each.progress.get("best_step") for each in listed(self.folder.checkpoints))}
        kept = {self.folder.best(step).name for step in named if step is not None}
        for path in self.folder.root.glob("best-*.pth"):
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def keep_best(self, step: int) -> None:
        """The voice as it is now is the best so far."""
        write_voice(self.folder.best(step), *self._recipe.export())

    def publish(self, standing: Standing, epoch: int) -> tuple[Path, int, str]:
        """`voice.pth`, the best so far or else the last, with its step and SHA-256; RVC's pair of the last state."""
        if self._config.rvc_checkpoints == "end":
            self._write_pair(standing.step, epoch)
        voice, step = self.folder.root / "voice.pth", standing.best.step
        if step is None or step == standing.step or not self.folder.best(step).is_file():
            return voice, standing.step, write_voice(voice, *self._recipe.export())
        with self.folder.best(step).open("rb") as source:
            return voice, step, write_atomically(voice, lambda stream: shutil.copyfileobj(source, stream))

    def _write_pair(self, step: int, epoch: int) -> None:
        modules, optimizers = self._recipe.modules(), self._recipe.optimizers()
        if "discriminator" in modules:
            write_training_pair(self.folder.root, modules, optimizers, step=step, epoch=epoch)
