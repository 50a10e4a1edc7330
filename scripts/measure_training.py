"""How fast does a preset train on this machine? Synthetic pieces, real steps: seconds per step, by preset."""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from libs.voice.device import pick_device, set_threads
from libs.voice.recipe import Batch, Recipe, build_recipe
from libs.voice.training_config import PRESETS, TrainingConfig


def synthetic_batch(recipe: Recipe, size: int, frames: int, step: int) -> Batch:
    """`size` pieces of noise with a pitch of 150 Hz."""
    draw = torch.Generator().manual_seed(step)
    frames = min(frames, recipe.segment_frames)
    return Batch(
        torch.randn(size, frames, recipe.content_width, generator=draw),
        torch.full((size, frames), 150.0),
        torch.full((size, frames), 40),
        0.1 * torch.randn(size, frames * recipe.hop_length, generator=draw),
        torch.full((size,), frames),
        torch.zeros(size, dtype=torch.long),
        step,
        tuple(range(step * size, (step + 1) * size)),
    )


def main() -> None:
    """Prints one JSON line per preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=["rvc-tiny", "lite"], help=f"of {', '.join(PRESETS)}")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--frames", type=int, default=300, help="length of a piece in 10 ms frames")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    threads, device = set_threads(options.threads), pick_device(options.device)
    for preset in options.presets:
        config = TrainingConfig(preset=preset).resolved()
        recipe = build_recipe(preset, config, device)
        recipe.prepare(1000, 10)
        size = config.batch_size or 1
        wall, cpu = [], []
        for step in range(options.steps + 1):
            batch = synthetic_batch(recipe, size, options.frames, step).to(device)
            before, used = time.perf_counter(), time.process_time()
            recipe.step(batch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            wall.append(time.perf_counter() - before)
            cpu.append(time.process_time() - used)
        print(
            json.dumps(
                {
                    "preset": preset,
                    "device": str(device),
                    "threads": threads,
                    "batch_size": size,
                    "frames": min(options.frames, recipe.segment_frames),
                    "seconds_per_step": round(statistics.median(wall[1:]), 4),
                    "cpu_seconds_per_step": round(statistics.median(cpu[1:]), 4),
                }
            ),
            flush=True,
        )


if __name__ == "__main__":
    main()
