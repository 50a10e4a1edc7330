"""How do tests start training runs, kill them, and compare what they leave?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from libs.voice.child import Outcome, TrainingChild
from libs.voice.progress import Progress
from libs.voice.safe_load import load_tensors
from libs.voice.training import TrainingInputs, TrainingResult, train
from libs.voice.training_config import TrainingConfig

PARENT = """
import asyncio, json, sys
from libs.voice.child import TrainingChild
async def main():
    child = TrainingChild({"experiment": sys.argv[1], "run": sys.argv[2]}, json.loads(sys.argv[3]))
    await child.start()
    async for line in child.progress():
        print(child.pid, line["step"], flush=True)
asyncio.run(main())
"""


def a_worker(experiment: Path, folder: Path, config: dict[str, Any]) -> tuple[subprocess.Popen[str], int]:
    """A process that has a run in a child of its own, past the first step; and the child's process id."""
    worker = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(experiment), str(folder), json.dumps(config)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    with worker.stdout:
        return worker, next(int(line.split()[0]) for line in worker.stdout if int(line.split()[1]) > 0)


class StepClock:
    """A clock that stands still for `steps` steps of the run in `folder`, and then is far beyond every limit.

    However slow a machine is, as many steps are made as the test says.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self._folder = folder
        self._end = max(steps_of(folder), default=0) + steps

    def __call__(self) -> float:
        return 1e9 if max(steps_of(self._folder), default=0) >= self._end else 0.0


def ignore(_: Progress) -> None: ...


def run(experiment: Path, folder: Path, config: TrainingConfig, **stop: Any) -> TrainingResult:
    return train(TrainingInputs(experiment, folder), config, ignore, **stop)


async def in_a_child(
    experiment: Path, folder: Path, config: TrainingConfig, kill_at: int | None = None, delay: float = 0.0
) -> Outcome:
    """A whole run in a process, or until it is killed `delay` seconds after it has made `kill_at` steps."""
    child = TrainingChild({"experiment": str(experiment), "run": str(folder)}, config.as_dict())
    await child.start()
    async for line in child.progress():
        if kill_at is not None and (line["step"] >= kill_at or len(lines_of(folder)) >= kill_at):
            await asyncio.sleep(delay)
            child.kill()
    return await child.wait()


def final_state(folder: Path) -> dict[str, Tensor]:
    """Every tensor of the newest checkpoint, weights and optimisers' moments, by its path."""
    state = load_tensors(max(folder.glob("checkpoints/checkpoint-????????")) / "state.pt")
    flat: dict[str, Tensor] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, dict):
            for key, each in value.items():
                walk(f"{name}/{key}", each)

    walk("", {key: state[key] for key in ("modules", "optimizers")})
    return flat


def different(one: Path, other: Path) -> list[str]:
    """Names of tensors that are not the same bit by bit."""
    first, second = final_state(one), final_state(other)
    assert first.keys() == second.keys()
    assert len(first) > 40
    return [name for name in first if not torch.equal(first[name], second[name])]


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The lines of `metrics.jsonl`; the last one of a running process may be half there."""
    path = folder / "metrics.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append(json.loads(line))
        except ValueError:
            continue
    return lines


def steps_of(folder: Path) -> list[int]:
    """The steps that made the curve, in order."""
    return [line["step"] for line in lines_of(folder) if "loss" in line]
