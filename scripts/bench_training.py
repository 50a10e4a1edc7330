"""How much faster is a step of training than the plain way, and what makes it so? `python -m scripts.bench_training`

Plain is RVC's own order of work with torch's plain settings: real and made sound judged one after the other, gradients
for all of it in both halves of the step, AdamW one tensor after the other, float32. Then one change after the other,
each kept for the next. All ways take turns at the steps of one network, so that a busy machine slows all of them alike,
and a ratio is the median of those of single turns. Processor time is told beside wall time: other work on the machine
disturbs it less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from libs.voice.batch import Batch
from libs.voice.device import pick_device, set_threads
from libs.voice.lite_recipe import LiteRecipe
from libs.voice.recipe import Recipe, check_losses
from libs.voice.rvc.losses import adversarial_loss, discriminator_loss, feature_loss
from libs.voice.rvc.recipe import Passed, RvcRecipe
from libs.voice.training_config import TrainingConfig
from scripts.measure_training import synthetic_batch


@dataclass(frozen=True)
class Way:
    """How a step is made; `judged_at_once` and `spared` are what `RvcRecipe` does."""

    name: str
    judged_at_once: bool = False
    spared: bool = False
    fused: bool = False
    bf16: bool = False
    channels_last: bool = False


PLAIN = Way("plain")
RVC_WAYS = (
    PLAIN,
    at_once := replace(PLAIN, name="both sounds judged at once", judged_at_once=True),
    spared := replace(at_once, name="no gradients that nobody uses", spared=True),
    fused := replace(spared, name="fused optimiser (our fp32)", fused=True),
    replace(fused, name="channels last in the judges", channels_last=True),
    replace(fused, name="bfloat16", bf16=True),
)
LITE_WAYS = (
    PLAIN,
    replace(PLAIN, name="fused optimiser", fused=True),
    replace(PLAIN, name="bfloat16", fused=True, bf16=True),
)


class Measured(RvcRecipe):
    """RVC's step in one of the ways."""

    way = PLAIN

    def _teach_judges(self, parts: Sequence[Batch]) -> tuple[Passed | None, list[dict[str, float]]]:
        if self.way.judged_at_once:
            return super()._teach_judges(parts)
        passed = self._forward(parts[0])
        with self._autocast():
            real_judged, made_judged = self.judges(passed.real), self.judges(passed.made.detach())
        loss = discriminator_loss(real_judged, made_judged)
        told = check_losses({"discriminator": loss})
        loss.backward()  # type: ignore[no-untyped-call]
        return passed, [told]

    def _teach_generator(self, parts: Sequence[Batch], kept: Passed | None) -> list[dict[str, float]]:
        if self.way.spared:
            return super()._teach_generator(parts, kept)
        assert kept is not None
        self.judges.requires_grad_(True)
        with self._autocast():
            real_judged, made_judged = self.judges(kept.real), self.judges(kept.made)
        terms = {
            "mel": kept.mel,
            "kl": kept.kl,
            "adversarial": adversarial_loss(made_judged),
            "feature": feature_loss(real_judged, made_judged),
        }
        total = torch.stack(list(terms.values())).sum()
        told = check_losses({"loss": total, **terms})
        total.backward()  # type: ignore[no-untyped-call]
        return [told]


def new_recipe(preset: str, device: torch.device) -> Recipe:
    """The recipe of `preset` whose steps are timed: always the same weights."""
    config = TrainingConfig(preset=preset, precision="fp32").resolved()
    torch.manual_seed(1)
    recipe: Recipe = LiteRecipe(config, device) if preset == "lite" else Measured(config, device)
    recipe.prepare(1000, 10)
    return recipe


def go(recipe: Recipe, way: Way) -> None:
    """From now on `recipe` makes its steps in this way."""
    if isinstance(recipe, LiteRecipe):
        recipe.half = way.bf16
    elif isinstance(recipe, Measured):
        recipe.way = way
        recipe.precision = torch.bfloat16 if way.bf16 else torch.float32
        layout = torch.channels_last if way.channels_last else torch.contiguous_format
        for parameter in recipe.judges.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=layout)
    for optimizer in recipe.optimizers().values():
        for group in optimizer.param_groups:
            group.update(fused=way.fused, foreach=False)


def compare(
    preset: str, ways: Sequence[Way], *, size: int, frames: int, rounds: int, device: torch.device
) -> list[dict[str, object]]:
    """Seconds of a step of `size` pieces of `frames` frames in each way, and how many times faster than plain it is."""
    recipe = new_recipe(preset, device)
    seconds: list[list[float]] = [[] for _ in ways]
    work: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for number, way in enumerate(ways):
            go(recipe, way)
            batch = synthetic_batch(recipe, size, frames, turn * len(ways) + number).to(device)
            before, used = time.perf_counter(), time.process_time()
            recipe.step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first one fills caches and makes the optimisers' state
                seconds[number].append(time.perf_counter() - before)
                work[number].append(time.process_time() - used)
    return [
        {
            "way": way.name,
            "seconds_per_step": round(statistics.median(own), 4),
            "times_faster": _ratio(seconds[0], own),
            "cpu_seconds_per_step": round(statistics.median(cpu), 4),
            "times_less_cpu": _ratio(work[0], cpu),
        }
        for way, own, cpu in zip(ways, seconds, work, strict=True)
    ]


def _ratio(plain: Sequence[float], own: Sequence[float]) -> float:
    return round(statistics.median(p / s for p, s in zip(plain, own, strict=True)), 3)


def measure(work: Path, *, rounds: int = 3, threads: int | None = None) -> dict[str, object]:
    """Ratios on this machine's CPU, and on its CUDA device where there is one. Nothing is written to `work`."""
    count = set_threads(threads)
    cpu = torch.device("cpu")
    full = compare("rvc-v2-40k", RVC_WAYS, size=2, frames=200, rounds=rounds, device=cpu)
    lite = compare("lite", LITE_WAYS, size=8, frames=150, rounds=4 * rounds, device=cpu)
    report: dict[str, object] = {
        "threads": count,
        "torch": torch.__version__,
        "rvc-v2-40k": {"batch_size": 2, "frames": 200, "ways": full},
        "lite": {"batch_size": 8, "frames": 150, "ways": lite},
        "cuda": "not measured: this machine has no CUDA device",
    }
    if torch.cuda.is_available():
        device = pick_device("cuda")
        ways = compare("rvc-v2-40k", RVC_WAYS, size=8, frames=400, rounds=20, device=device)
        memory = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        report["cuda"] = {"device": torch.cuda.get_device_name(), "peak_gb": memory, "ways": ways}
    return report


def main() -> None:
    """Prints the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    print(json.dumps(measure(Path("."), rounds=options.rounds, threads=options.threads), indent=2))


if __name__ == "__main__":
    main()
