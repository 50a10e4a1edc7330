"""The ways of making a step that are timed against each other are the same step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from scripts.bench_training import PLAIN, RVC_WAYS, Way, compare, go, new_recipe
from scripts.measure_training import synthetic_batch

CPU = torch.device("cpu")


@pytest.mark.parametrize("way", [way for way in RVC_WAYS if way != PLAIN], ids=lambda way: way.name)
def test_every_way_makes_the_plain_step(way: Way) -> None:
    told, weights = [], []
    for each in (PLAIN, way):
        recipe = new_recipe("rvc-tiny", CPU)
        go(recipe, each)
        told.append([recipe.step(synthetic_batch(recipe, 2, 40, step)) for step in range(2)])
        weights.append(torch.cat([p.detach().flatten() for p in recipe.modules()["generator"].parameters()]))

    if way.bf16:
        assert told[1][0] == pytest.approx(told[0][0], rel=0.1)
    else:
        assert told[1] == [pytest.approx(plain, rel=1e-3) for plain in told[0]]
        # Adam moves each weight by about the rate, whatever its gradient: a rounding may turn the sign of a tiny one
        assert float((weights[0] - weights[1]).abs().median()) < 1e-6


def test_ways_are_compared_in_turns_and_plain_is_one() -> None:
    ways = (PLAIN, replace(PLAIN, name="fused", fused=True))

    rows = compare("rvc-tiny", ways, size=2, frames=40, rounds=2, device=CPU)

    assert [row["way"] for row in rows] == ["plain", "fused"]
    assert rows[0]["times_faster"] == 1.0
    assert all(float(str(row["seconds_per_step"])) > 0 for row in rows)
