"""A run that was killed ends with the same weights, bit by bit, as one that was not, whatever it was asked to do."""

from __future__ import annotations

import asyncio
import dataclasses
import random
import secrets
from pathlib import Path

import pytest

from libs.voice.training_config import TrainingConfig
from tests.unit.voice.experiments import make_experiment
from tests.unit.voice.runs import different, in_a_child, lines_of, steps_of

TINY = TrainingConfig(
    preset="rvc-tiny", total_steps=10, batch_size=2, threads=1, checkpoint_every_steps=2, early_stopping_patience=0
)
LITE = dataclasses.replace(TINY, preset="lite")
ASKED = {
    "rvc-tiny": TINY,
    "lite": LITE,
    "rvc-tiny in parts, with a mean of weights, augmentation and dropout": dataclasses.replace(
        TINY, accumulation=2, ema_decay=0.99, augmentation=True, dropout=0.1
    ),
    "lite in parts, with a mean of weights, augmentation and dropout": dataclasses.replace(
        LITE, accumulation=2, ema_decay=0.99, augmentation=True, dropout=0.1
    ),
    "lite against judges": dataclasses.replace(LITE, adversarial_steps=6),
    "lite against judges in parts, with augmentation and dropout": dataclasses.replace(
        LITE, adversarial_steps=9, accumulation=2, augmentation=True, dropout=0.1
    ),
    "lite of two speakers in parts, with dropout": dataclasses.replace(LITE, accumulation=2, dropout=0.1),
    "rvc-tiny in bfloat16 without pitch": dataclasses.replace(TINY, precision="bf16", f0=False),
}


@pytest.mark.slow
@pytest.mark.parametrize("asked", ASKED)
def test_a_run_killed_three_times_at_random_moments_is_the_unbroken_run_bit_by_bit(tmp_path: Path, asked: str) -> None:
    seed = secrets.randbits(32)
    print(f"the moments of the kills are drawn from seed {seed}")
    chance = random.Random(seed)
    config = ASKED[asked]
    rate = 24_000 if config.preset == "lite" else 16_000
    speakers = 2 if "two speakers" in asked else 1
    experiment = make_experiment(
        tmp_path / "experiment", sources=4, pieces=2, seconds=0.6, rate=rate, speakers=speakers
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    kills = sorted(chance.sample(range(1, 9), 3))

    unbroken = asyncio.run(in_a_child(experiment, whole, config))
    endings = [
        asyncio.run(in_a_child(experiment, broken, config, kill_at=step, delay=chance.uniform(0, 0.2))).ending
        for step in kills
    ]
    last = asyncio.run(in_a_child(experiment, broken, config))

    assert "crashed" in endings, (seed, kills)
    assert (unbroken.ending, last.ending) == ("completed", "completed"), (seed, unbroken, last)
    assert different(whole, broken) == [], seed
    assert unbroken.result is not None
    assert last.result is not None
    assert last.result["sha256"] == unbroken.result["sha256"]
    assert steps_of(broken) == list(range(1, 11))
    held_out = [[line["validation"] for line in lines_of(folder) if "validation" in line] for folder in (whole, broken)]
    assert held_out[0] == held_out[1] != []
